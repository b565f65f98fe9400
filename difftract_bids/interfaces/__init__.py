"""Nipype interfaces: load, call one function, save.

Each can be used alone: make one with its inputs, call ``run()``, and read the names of the files
that it wrote off its ``outputs``. They lie in the current folder, or in that of ``run(cwd=...)``
(inputs then need absolute paths), and replace what had their names there.

The examples here and in :mod:`difftract_bids.workflows` start in a folder that holds those files
of one simulated head that they name. The dataset ``bids`` is what this command writes::

    difftract-phantom bids --voxel-size 6 --t1w-voxel-size 4 --shells 2000 --directions 30 --n-b0 2

The other files, and where they are from:

``raw.nii.gz``, ``raw.bval``, ``raw.bvec``, ``T1w.nii.gz``, ``labels.nii.gz``, ``labels.tsv``
    Diffusion run, T1w, and true parcellation with its node table: of the dataset.
``raw_2.nii.gz``, ``raw_2.bval``, ``raw_2.bvec``, ``epi.nii.gz``
    Another run of that head, encoded the opposite way; the first of its b=0 volumes.
``dwi.nii.gz``, ``dwi.bval``, ``dwi.bvec``
    Stands for the preprocessed run. There is little to do: it is the raw one.
``dwiref.nii.gz``, ``meandwi.nii.gz``, ``mask.nii.gz``, ``epi_mask.nii.gz``
    ``ExtractReference`` and ``ComputeBrainMask``; the mask again, as if of distorted images.
``affines.txt``, ``rigid.txt``, ``outliers.tsv``, ``confounds.tsv``
    Made up: half a millimetre of motion. From it, ``FlagOutliers`` and ``WriteConfounds``.
``noise.nii.gz``, ``displacement.nii.gz``, ``field_hz.nii.gz``
    Made up, of one value in all of the brain: noise, 3 mm and 10 Hz of distortion.
``fa.nii.gz``, ``md.nii.gz``, ``v1.nii.gz``
    ``FitTensor``.
``response.txt``, ``fodf.nii.gz``; ``wm.txt``, ``csf.txt``, ``wmfod.nii.gz``, ``csffod.nii.gz``
    ``EstimateResponse`` and ``FitFODF``, by the models ``csd`` and ``ss2t``.
``tractogram.trx``, ``preview.trx``, ``summary.parquet``, ``weights.tsv``
    ``TrackStreamlines`` (2,000 streamlines) and ``WeighStreamlines``.
``count.dense.tsv``, ``meanlength.dense.tsv``, ``meanfa.dense.tsv``, ``connectome.h5``
    ``BuildConnectome``; ``nodeindices.tsv`` too.
``t1w_dwi.nii.gz``, ``t1w_to_dwi.txt``
    ``AlignT1w``.
``template.nii.gz``, ``from-template_to-T1w.txt``, ``template_to_dwi.h5``
    The ICBM 152 template in voxels of 4 mm, moved to the T1w; ``UseGivenTransform``.
``aparcaseg.nii.gz``, ``csf_probseg.nii.gz``, ``gm_probseg.nii.gz``, ``wm_probseg.nii.gz``
    The true tissues, as FreeSurfer and fMRIPrep would write them.
``five_tissue_types.nii.gz``
    ``TissuesFromLabels``.
``sensitivity.nii.gz``, ``sd.dense.tsv``, ``facts.npz``
    ``MapSensitivity``, ``EstimateEdgeErrors`` and ``RefineFODF``.
``eddy_in.*``, ``eddy_mask.nii.gz``, ``acqparams.txt``, ``index.txt``, ``eddy_corrected.*``
    ``PrepareEddy``; what FSL's eddy would write of a head that kept still.
``model.safetensors``
    A network that has learnt nothing.
"""
