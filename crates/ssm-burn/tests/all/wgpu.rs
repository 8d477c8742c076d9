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

/// Scans among burn's own ops, with nothing read in between: the order on the queue is all that keeps them apart.
#[test]
fn scans_and_burns_own_ops_are_in_order() {
    let (device, _) = wgpu();
    let mut x = Tensor::<3>::ones([2, 64, 8], &device);
    let half = Tensor::<3>::full([2, 64, 8], 0.5, &device);
    let mut expected = vec![1.0_f64; 64];
    for _ in 0..50 {
        // Buffers of the rounds before go back to the pool and come again.
        x = gated_scan(x * 0.25, half.clone(), None, None, ScanOptions::default()).expect("a scan").y + 0.125;
        let mut h = 0.0;
        for value in &mut expected {
            h = 0.5 * h + 0.25 * *value;
            *value = h + 0.125;
        }
    }
    let got = download(x).to_f64();
    for row in 0..2 {
        for (t, expected) in expected.iter().enumerate() {
            for channel in 0..8 {
                let got = got[(row * 64 + t) * 8 + channel];
                assert!((got - expected).abs() < 1e-6, "{row} {t} {channel}: {got} {expected}");
            }
        }
    }
}
