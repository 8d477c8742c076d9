//! From element types at run time to types at compile time, matched once a launch.

/// Evaluates the expression with the storage type and the output type of an op's problem.
macro_rules! with_types {
    ($op:expr, |$e:ident, $o:ident| $body:expr) => {{
        use half::{bf16, f16};
        use ssm_core::{DType, Op};
        let problem = Op::problem($op);
        macro_rules! with_out {
            ($storage:ty) => {{
                type $e = $storage;
                match problem.out_dtype() {
                    DType::F16 => {
                        type $o = f16;
                        $body
                    }
                    DType::Bf16 => {
                        type $o = bf16;
                        $body
                    }
                    // A problem never mixes f64 with the others.
                    DType::F32 | DType::F64 => {
                        type $o = f32;
                        $body
                    }
                }
            }};
        }
        match problem.dtype() {
            DType::F32 => with_out!(f32),
            DType::F16 => with_out!(f16),
            DType::Bf16 => with_out!(bf16),
            DType::F64 => {
                type $e = f64;
                type $o = f64;
                $body
            }
        }
    }};
}
pub(crate) use with_types;
