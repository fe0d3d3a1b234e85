/* Types of elements that a parameter struct may name. */
#pragma once

enum {
    CELLSCRIBE_FP16 = 0,
    CELLSCRIBE_FP32 = 1,
    CELLSCRIBE_INT8 = 2
};
