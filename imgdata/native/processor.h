/* What this processor can do beyond its baseline. */
#ifndef IMGDATA_PROCESSOR_H
#define IMGDATA_PROCESSOR_H

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_X86 1
#endif

typedef enum {
    HAS_POPCNT = 1,
    HAS_AVX2 = 2, /* with F16C, BMI and BMI2, which all such processors have, but not all virtual machines */
    HAS_SHA = 4, /* with SSE4.1 and SSSE3 */
} Feature;

/* Whether the processor, and the system for AVX2's registers, have it. */
int processor_has(Feature feature);

#endif
