// Every entry of the module; scan_abi.h says how each is launched.
#include "scan_backward_chunked.cuh"
#include "scan_forward_chunked.cuh"
#include "scan_step.cuh"

#ifdef SCAN_HOST
#define __launch_bounds__(...)
#define __grid_constant__
#define SCAN_ENTRY extern "C" void
#else
#define SCAN_ENTRY extern "C" __global__ void
#endif
// Forward of a small chunk leaves room for a second block.
#define SCAN_THREADS(TYPE, CHUNK) (32 * Tuning<TYPE, TYPE>::CHUNK / Tuning<TYPE, TYPE>::SUB)
#define SCAN_FORWARD_BOUNDS(TYPE) \
    __launch_bounds__(SCAN_THREADS(TYPE, CHUNK), SCAN_THREADS(TYPE, CHUNK) <= 256 ? 2 : 1)
#define SCAN_BACKWARD_BOUNDS(TYPE) __launch_bounds__(SCAN_THREADS(TYPE, CHUNKB), 1)

// OUT is y's or dy's type where it is the storage type, ANY the suffix of the name.
#define SCAN_ENTRIES(NAME, TYPE, OUT)                                                                      \
    SCAN_ENTRY __launch_bounds__(32) scan_forward_march_##NAME(const __grid_constant__ ScanForward p) {               \
        scan_forward_march<TYPE, OUT>(p);                                                                             \
    }                                                                                                                 \
    SCAN_ENTRY __launch_bounds__(32) scan_backward_march_##NAME(const __grid_constant__ ScanBackward p) {             \
        scan_backward_march<TYPE, OUT>(p);                                                                            \
    }                                                                                                                 \
    SCAN_ENTRY SCAN_FORWARD_BOUNDS(TYPE) scan_forward_chunked_##NAME(const __grid_constant__ ScanForward p) {        \
        scan_forward_chunked<TYPE, OUT>(p);                                                                           \
    }                                                                                                                 \
    SCAN_ENTRY SCAN_BACKWARD_BOUNDS(TYPE) scan_backward_chunked_##NAME(const __grid_constant__ ScanBackward p) {      \
        scan_backward_chunked<TYPE, OUT>(p);                                                                          \
    }                                                                                                                 \
    SCAN_ENTRY __launch_bounds__(128) scan_step_##NAME(const __grid_constant__ ScanStep p) {                          \
        scan_step<TYPE, OUT>(p);                                                                                      \
    }

SCAN_ENTRIES(f32, float, float)
SCAN_ENTRIES(f32_any, float, AnyType)
SCAN_ENTRIES(f16, f16, f16)
SCAN_ENTRIES(f16_any, f16, AnyType)
SCAN_ENTRIES(bf16, bf16, bf16)
SCAN_ENTRIES(bf16_any, bf16, AnyType)

SCAN_ENTRY __launch_bounds__(256) scan_put(const __grid_constant__ ScanPut p) { scan_put_values(p); }
