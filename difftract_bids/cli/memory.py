"""What to say where memory was short."""

MEMORY_REMEDY = (
    "Lower --nprocs or --omp-nthreads, use --low-mem, or give the job more memory; the same "
    "command then continues."
)
