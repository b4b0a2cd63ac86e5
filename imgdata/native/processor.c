/* The processor's own word on what it can do. `__builtin_cpu_supports` needs the compiler's runtime, and Zig's says no to
   everything. */
#include "processor.h"

#include <stdatomic.h>

#ifdef HAVE_X86
#include <cpuid.h>

static int find_features(void)
{
    const unsigned wanted = bit_AVX2 | bit_BMI | bit_BMI2;
    unsigned a, b, c, d, e, low, high;
    int found = 0;

    if (!__get_cpuid(1, &a, &b, &c, &d))
        return 0;
    if (c & bit_POPCNT)
        found |= HAS_POPCNT;
    if (c & bit_SSE4_1 && c & bit_SSSE3 && __get_cpuid_count(7, 0, &a, &b, &e, &d) && b & bit_SHA)
        found |= HAS_SHA;
    if (!(c & bit_OSXSAVE) || !(c & bit_F16C))
        return found;
    /* Bits 1 and 2: the system keeps the registers of SSE and AVX for each thread. */
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & 6) == 6 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & wanted) == wanted)
        found |= HAS_AVX2;
    return found;
}
#else
static int find_features(void)
{
    return 0;
}
#endif

int processor_has(Feature feature)
{
    /* Asked once: in a virtual machine the question takes 20 us. */
    static atomic_int known = -1;
    int found = atomic_load_explicit(&known, memory_order_relaxed);

    if (found < 0) {
        found = find_features();
        atomic_store_explicit(&known, found, memory_order_relaxed);
    }
    return (found & (int)feature) != 0;
}
