"""From a file of streamlines to a connectome, beside tck2connectome."""

#: Nodes of the parcellation.
N_NODES = 116
#: Streamlines of the run that is not timed: it loads and compiles.
FEW = 100
#: Rules that are timed, and tck2connectome's options for them.
RULES = {"radial": (), "all_voxels": ("-assignment_all_voxels",)}
