//! Between burn's tensors and the testkit's, and the devices that tests run on.

use burn::tensor::{DType as BurnType, Device, Tensor, TensorData};
use ssm_core::DType;
use ssm_testkit::HostTensor;

/// A burn tensor with these values, rounded to the type.
pub(crate) fn upload<const R: usize>(
    values: &[f64],
    shape: [usize; R],
    dtype: DType,
    device: &Device,
) -> Tensor<R> {
    let (data, dtype) = match HostTensor::from_f64(dtype, values) {
        HostTensor::F32(v) => (TensorData::new(v, shape), BurnType::F32),
        HostTensor::F16(v) => (TensorData::new(v, shape), BurnType::F16),
        HostTensor::Bf16(v) => (TensorData::new(v, shape), BurnType::BF16),
        HostTensor::F64(v) => (TensorData::new(v, shape), BurnType::F64),
    };
    Tensor::from_data(data, (device, dtype))
}

/// What a burn tensor holds, in its own type.
pub(crate) fn download<const R: usize>(tensor: Tensor<R>) -> HostTensor {
    let data = tensor.into_data();
    match data.dtype() {
        BurnType::F32 => HostTensor::F32(data.try_to_vec().expect("f32")),
        BurnType::F16 => HostTensor::F16(data.try_to_vec().expect("f16")),
        BurnType::BF16 => HostTensor::Bf16(data.try_to_vec().expect("bf16")),
        BurnType::F64 => HostTensor::F64(data.try_to_vec().expect("f64")),
        other => panic!("not a scan's type: {other:?}"),
    }
}

/// Every device that this build has kernels for.
pub(crate) fn devices() -> Vec<Device> {
    vec![
        Device::flex(),
        #[cfg(feature = "wgpu")]
        wgpu().0,
        #[cfg(feature = "cuda")]
        Device::cuda(0),
    ]
}

/// The types that both burn's own ops and the scan know there.
pub(crate) fn types(device: &Device) -> &'static [DType] {
    if *device == Device::flex() {
        return &DType::ALL;
    }
    #[cfg(feature = "cuda")]
    if *device == Device::cuda(0) {
        return &[DType::F32, DType::F16, DType::Bf16];
    }
    &[DType::F32, DType::F16]
}

/// burn's wgpu device of this process, and the setup behind it.
#[cfg(feature = "wgpu")]
pub(crate) fn wgpu() -> (Device, burn::tensor::wgpu::WgpuSetup) {
    static DEVICE: std::sync::LazyLock<(Device, burn::tensor::wgpu::WgpuSetup)> =
        std::sync::LazyLock::new(|| {
            let (device, setup) = Device::wgpu_options().init_with_setup().expect("an adapter");
            ssm_burn::connect_wgpu(&device, &setup).expect("a wgpu device");
            (device, setup)
        });
    DEVICE.clone()
}
