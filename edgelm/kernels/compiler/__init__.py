"""All kernels as one library for a processor: this one or, on any machine, another one.

numba and LLVM compile what numba compiles when a kernel is first called, from the same source, and GNU ld makes a
library of it. Nothing here is imported by what runs kernels (``edgelm.kernels.aot``).
"""
