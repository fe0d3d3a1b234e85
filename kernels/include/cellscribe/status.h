/* What every function of libcellscribe_kernels returns: 0, a cudaError_t (below 10000), or one of these. */
#pragma once

enum {
    CELLSCRIBE_OK = 0,
    CELLSCRIBE_BAD_SHAPE = 10001,       /* a size the kernel is not built for; the header names those it is */
    CELLSCRIBE_SMALL_WORKSPACE = 10002  /* fewer bytes than the workspace function asked for */
};
