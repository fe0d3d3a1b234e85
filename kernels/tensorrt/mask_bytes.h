/* An int32 mask as the bytes that the kernel reads. */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* bytes[i] = mask[i] != 0; both on the device. Returns 0 or a cudaError_t. */
int cellscribe_mask_bytes(const int32_t *mask, uint8_t *bytes, int64_t count, void *stream);

#ifdef __cplusplus
}
#endif
