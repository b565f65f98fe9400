"""How fibre orientation distributions are estimated, or where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from difftract_bids.errors import ConfigError
from difftract_bids.validation import Validated, setting

FittedModel = Literal["csd", "msmtcsd", "ss2t"]
FodfModel = Literal["auto", "csd", "msmtcsd", "ss2t"]
ResponseAlgorithm = Literal["auto", "tournier", "fa", "dhollander"]

#: Tissues of each model, white matter (the one that has directions) first.
TISSUES: dict[str, tuple[str, ...]] = {
    "csd": ("WM",),
    "msmtcsd": ("WM", "GM", "CSF"),
    "ss2t": ("WM", "CSF"),
}


@dataclass(frozen=True)
class FodfConfig(Validated):
    """How fibre orientation distributions are estimated."""

    model: FodfModel = setting(
        "auto",
        "fODF model: constrained spherical deconvolution of one shell (csd), of all shells into "
        "three tissues (msmtcsd), or of one shell and b=0 into two (ss2t); auto is msmtcsd where "
        "there are two shells, else csd.",
    )
    lmax: int | None = setting(
        None,
        "Maximum spherical harmonic degree of the fODF (even); default 8, or the response's if "
        "that is less.",
    )
    response_algorithm: ResponseAlgorithm = setting(
        "auto",
        "How responses are estimated: tournier or fa for one tissue, dhollander for several; auto "
        "is tournier or dhollander.",
    )
    response: tuple[str, ...] = setting(
        (),
        "Response functions to use instead, MRtrix's text format: one for csd, WM GM CSF for "
        "msmtcsd, WM CSF for ss2t; or one folder of files *_model-*_label-*_response.txt, such as "
        "the group level writes.",
        unit="file",
    )
    constraint_directions: str | None = setting(
        None,
        "Directions along which the fODF may not be negative: azimuth and polar angle in radians "
        "in each row, as dwi2fod -directions reads them; default 300 of our own.",
        unit="file",
    )
    normalise_tissues: bool = setting(
        default=True,
        desc="Scale the tissues of a multi-tissue model to a common intensity, so that amplitudes "
        "compare across a brain and between brains.",
    )
    input_fodf: str | None = setting(
        None,
        "fODF image from elsewhere to be tracked (.nii.gz or .mif.gz, on the grid of the "
        "diffusion run); none is fitted.",
        unit="image",
    )
    fodf_model_file: str | None = setting(
        None,
        "Trained network, as difftract-train writes it, that predicts the fODFs; none are fitted.",
        unit="file",
    )
    fodf_model_class: str | None = setting(
        None,
        "Class of a network that is not built in, to be imported and trusted: the model file "
        "itself holds no code.",
        unit="package.module:Class",
    )

    def __post_init__(self) -> None:
        """Check the ranges, and what goes together."""
        super().__post_init__()
        ok = self.lmax is None or (2 <= self.lmax <= 12 and self.lmax % 2 == 0)
        self._require("lmax", ok=ok, rule="an even number from 2 to 12")
        directions = self.constraint_directions
        ok = directions is None or bool(directions.strip())
        self._require("constraint_directions", ok=ok, rule="a path")
        for path in self.response:
            self._require("response", ok=bool(path.strip()), rule="paths")
        if self.input_fodf is not None:
            self._require("input_fodf", ok=bool(self.input_fodf.strip()), rule="a path")
            self._refuse_fitting("input_fodf", "With an fODF image given, none is fitted")
        self._check_network()
        if self.response and self.response_algorithm != "auto":
            raise _senseless("response", "response_algorithm", "Given responses are not estimated")
        if self.model != "auto":
            self.check_model(self.model)

    def check_model(self, model: str) -> None:
        """Check that the other settings go with a model, the one asked for or the one chosen.

        Parameters
        ----------
        model
            A key of :data:`TISSUES`.

        Raises
        ------
        ConfigError
            If responses are of another number, or are to be estimated otherwise.
        """
        tissues = TISSUES[model]
        # One path may be a folder.
        if len(self.response) > 1 and len(self.response) != len(tissues):
            raise ConfigError(
                f"{len(self.response)} responses are given; the model {model} has "
                f"{len(tissues)}: {' '.join(tissues)}.",
                where="FodfConfig.response",
                remedy=f"Give {len(tissues)} in this order, one folder that has them, or another "
                "model (--fodf-model).",
            )
        several = len(tissues) > 1
        if several and self.response_algorithm in ("tournier", "fa"):
            raise ConfigError(
                f"The algorithm {self.response_algorithm} finds the response of white matter "
                f"alone; the model {model} needs {' '.join(tissues)}.",
                where="FodfConfig.response_algorithm",
                remedy="Leave it at auto (dhollander), or take the model csd (--fodf-model).",
            )

    def algorithm_of(self, model: str) -> str:
        """Fill in the algorithm that estimates the responses of a model."""
        if self.response_algorithm != "auto":
            return self.response_algorithm
        return "dhollander" if len(TISSUES[model]) > 1 else "tournier"

    def _check_network(self) -> None:
        file, kind = self.fodf_model_file, self.fodf_model_class
        if kind is not None:
            package, colon, name = kind.partition(":")
            parts = [*package.split("."), name]
            ok = bool(colon) and all(part.isidentifier() for part in parts)
            self._require("fodf_model_class", ok=ok, rule="package.module:Class")
        if kind is not None and file is None:
            raise ConfigError(
                "fodf_model_class is given without fodf_model_file, whose network it is.",
                where="FodfConfig",
                remedy="Give the model file as well, or leave the class out.",
            )
        if file is not None:
            self._require("fodf_model_file", ok=bool(file.strip()), rule="a path")
            if self.input_fodf is not None:
                why = "fODFs are given or predicted, not both"
                raise _senseless("fodf_model_file", "input_fodf", why)
            self._refuse_fitting("fodf_model_file", "fODFs that a network predicts are not fitted")

    def _refuse_fitting(self, instead: str, why: str) -> None:
        given = {
            "model": self.model != "auto",
            "lmax": self.lmax is not None,
            "response_algorithm": self.response_algorithm != "auto",
            "response": bool(self.response),
            "constraint_directions": self.constraint_directions is not None,
        }
        name = next((name for name, is_given in given.items() if is_given), None)
        if name is not None:
            raise _senseless(instead, name, why)


def _senseless(one: str, other: str, why: str) -> ConfigError:
    return ConfigError(
        f"{one} and {other} cannot both be given. {why}.",
        where="FodfConfig",
        remedy=f"Leave one of them out: {one} or {other}.",
    )
