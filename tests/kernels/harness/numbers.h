// Half precision on the host, without a compiler's or CUDA's type for it.
#pragma once

#include <cmath>
#include <cstdint>

inline double from_half(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double sign = bits & 0x8000 ? -1 : 1;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    return sign * (exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24));
}

// Rounds to nearest; values here are far from the greatest half.
inline uint16_t to_half(double x) {
    const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    const double size = std::fabs(x);
    int exponent = 0;
    std::frexp(size, &exponent);  // size = f * 2^exponent, f in [0.5, 1)
    const int step = exponent < -13 ? -24 : exponent - 11;
    const long units = std::lrint(std::ldexp(size, -step));
    if (step == -24) return uint16_t(sign | units);
    return uint16_t(sign | (((step + 25) << 10) + (units - 1024)));
}
