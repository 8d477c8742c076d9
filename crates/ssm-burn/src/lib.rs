#![doc = include_str!("../README.md")]

mod autodiff;
mod backend;
mod conv1d;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod cube;
#[cfg(feature = "cuda")]
mod cuda;
mod error;
mod flex;
mod flex_gates;
#[cfg(feature = "fusion")]
mod fusion;
mod gated_ssm;
mod gates;
mod hawk;
mod recurrent;
mod rg_lru;
mod scan;
mod sequences;
mod slots;
mod weights;
#[cfg(feature = "wgpu")]
mod wgpu;

pub use conv1d::{Conv1dCausal, Conv1dCausalConfig, Conv1dCausalState};
pub use error::Error;
pub use gated_ssm::{GatedSsm, GatedSsmConfig, GatedSsmState};
pub use hawk::{
    GatedMlp, Hawk, HawkBlock, HawkBlockConfig, HawkBlockState, HawkConfig, HawkLayer, HawkState,
};
pub use recurrent::{Input, Recurrent, State};
pub use rg_lru::{RgLru, RgLruConfig, RgLruState};
pub use scan::{ScanOptions, ScanOutput, gated_scan};
pub use sequences::Sequences;
pub use slots::{SlotError, SlotId, Slots};
pub use ssm_core::{Algorithm, Checkpoint};
pub use weights::{LambdaSign, RgLruNames, WeightsError};
#[cfg(feature = "wgpu")]
pub use wgpu::connect_wgpu;

use scan::burn_type;
