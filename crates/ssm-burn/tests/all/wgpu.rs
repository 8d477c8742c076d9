//! What is peculiar to burn's wgpu runtime; everything else runs on each device, in the modules beside this one.

use burn::tensor::{DType, Device, Tensor};
use ssm_burn::{Error, ScanOptions, connect_wgpu, gated_scan};
use ssm_core::PlanError;

use crate::host::{download, wgpu};

#[test]
fn a_device_is_connected_first() {
    let (_, setup) = wgpu();
    // The same wgpu device under another name, which nobody has connected.
    let device = Device::wgpu_options().setup(setup.clone()).init().expect("a device");
    let scan = |device: &Device| {
        let x = Tensor::<3>::ones([1, 3, 1], device);
        gated_scan(x.clone(), x, None, None, ScanOptions::default())
    };
    assert!(matches!(scan(&device).expect_err("not connected"), Error::NotConnected { .. }));
    connect_wgpu(&device, &setup).expect("a wgpu device");
    assert_eq!(download(scan(&device).expect("a scan").y).to_f64(), [1.0, 2.0, 3.0]);
    let error = connect_wgpu(&Device::flex(), &setup).expect_err("flex is not wgpu's");
    assert!(matches!(error, Error::UnsupportedDevice { .. }));
}

#[test]
fn a_type_that_the_device_lacks_is_an_error() {
    let (device, _) = wgpu();
    let x = Tensor::<3>::from_data(
        burn::tensor::TensorData::new(vec![1.0_f64; 3], [1, 3, 1]),
        (&device, DType::F64),
    );
    let error = gated_scan(x.clone(), x, None, None, ScanOptions::default()).expect_err("no f64 in WGSL");
    assert!(matches!(error, Error::Plan(PlanError::UnsupportedType { .. })), "{error}");
}
