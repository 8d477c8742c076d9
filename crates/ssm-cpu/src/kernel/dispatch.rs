//! From the instruction set found at run time to code compiled for it.

use super::lanes::Isa;
use super::portable::Portable;

/// A kernel over raw rows, written once for every instruction set.
pub(crate) trait Job {
    type Out;

    /// # Safety
    ///
    /// Every pointer in the job is good for the rows and the width that the job names, and the instruction set is enabled
    /// in the function that this is inlined into. Implementations are `#[inline(always)]`.
    unsafe fn run<I: Isa>(&self) -> Self::Out;
}

/// The instruction set that a backend runs with. Having one that is not portable proves that the processor has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    pub(crate) const PORTABLE: Self = Self(Kind::Portable);

    /// The best that this processor has.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
        {
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl");
            return Self(if wide { Kind::Avx512 } else { Kind::Avx2 });
        }
        Self::PORTABLE
    }

    pub(crate) fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
        }
    }

    /// # Safety
    ///
    /// Every pointer in the job is good for the rows and the width that the job names.
    #[inline]
    pub(crate) unsafe fn run<J: Job>(self, job: &J) -> J::Out {
        match self.0 {
            // SAFETY: the caller vouches for the pointers; the portable code needs no feature.
            Kind::Portable => unsafe { job.run::<Portable>() },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller vouches for the pointers; the level exists only where the features were detected.
            Kind::Avx2 => unsafe { run_avx2(job) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Kind::Avx512 => unsafe { run_avx512(job) },
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2<J: Job>(job: &J) -> J::Out {
    // SAFETY: the caller vouches for the pointers; this function enables the features.
    unsafe { job.run::<super::avx2::Avx2>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl")]
unsafe fn run_avx512<J: Job>(job: &J) -> J::Out {
    // SAFETY: the caller vouches for the pointers; this function enables the features.
    unsafe { job.run::<super::avx512::Avx512>() }
}
