// All that TensorRT's headers take from CUDA, for machines without its toolkit.
#pragma once

typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;
