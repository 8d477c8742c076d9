//! Slots at different positions, forks, and tokens taken back, against each sequence run alone.

use burn::tensor::{Device, Distribution, Tensor};
use ssm_burn::{Error, HawkConfig, Recurrent, Sequences, SlotError, Slots};

use crate::host::download;
use crate::layers::relative;

const WIDTH: usize = 6;

fn draw(len: usize) -> Tensor<2> {
    Tensor::random([len, WIDTH], Distribution::Uniform(-1.0, 1.0), &Device::flex())
}

fn hawk() -> ssm_burn::Hawk {
    HawkConfig::new(WIDTH, 2).init(&Device::flex()).expect("a stack")
}

/// The last output of a sequence that is run whole, from its beginning.
fn alone<L: Recurrent>(layer: &L, tokens: &[Tensor<2>]) -> Vec<f64> {
    let x = Tensor::cat(tokens.to_vec(), 0);
    let [len, width] = x.dims();
    let y = layer.forward(x.reshape([1, len, width])).expect("a forward");
    download(y.narrow(1, len - 1, 1)).to_f64()
}

fn same(what: &str, got: Tensor<2>, expected: &[f64]) {
    let off = relative(&download(got).to_f64(), expected);
    assert!(off <= 2e-6, "{what}: off by {off:e}");
}

#[test]
fn slots_come_fork_go_back_and_go_without_touching_each_other() {
    let layer = hawk();
    let mut slots = Slots::new(4);
    let (first, second) = (slots.add(&layer), slots.add(&layer));
    // A prompt for the first alone, then both together, each at its own position.
    let prompt = draw(9);
    let y = slots
        .prefill(&layer, &[first], prompt.clone().reshape([1, 9, WIDTH]), &Sequences::Rows)
        .expect("a prefill");
    assert_eq!(y.dims(), [1, 9, WIDTH]);
    let mut told = [vec![prompt], vec![]];
    for _ in 0..5 {
        let x = draw(2);
        let y = slots.step(&layer, &[second, first], x.clone()).expect("a step");
        told[1].push(x.clone().narrow(0, 0, 1));
        told[0].push(x.narrow(0, 1, 1));
        same("second", y.clone().narrow(0, 0, 1), &alone(&layer, &told[1]));
        same("first", y.narrow(0, 1, 1), &alone(&layer, &told[0]));
    }
    assert_eq!((slots.position(first), slots.position(second)), (Ok(14), Ok(5)));

    // A fork goes its own way.
    let third = slots.fork(first).expect("a fork");
    let x = draw(2);
    let y = slots.step(&layer, &[first, third], x.clone()).expect("a step");
    let with = |x: Tensor<2>| [told[0].clone(), vec![x]].concat();
    same("first after the fork", y.clone().narrow(0, 0, 1), &alone(&layer, &with(x.clone().narrow(0, 0, 1))));
    same("the fork", y.narrow(0, 1, 1), &alone(&layer, &with(x.narrow(0, 1, 1))));

    // Three tokens back, then another way on; the others stay where they are.
    slots.roll_back(first, 3).expect("a way back");
    assert_eq!((slots.position(first), slots.position(third)), (Ok(12), Ok(15)));
    let x = draw(1);
    let y = slots.step(&layer, &[first], x.clone()).expect("a step");
    let kept = [told[0][..4].to_vec(), vec![x]].concat();
    same("first after going back", y, &alone(&layer, &kept));

    slots.remove(second).expect("a slot");
    assert_eq!(slots.len(), 2);
    assert_eq!(
        slots.step(&layer, &[second], draw(1)).expect_err("gone"),
        SlotError::Unknown { slot: second }
    );
}

#[test]
fn packed_prompts_of_different_lengths_fill_slots() {
    let layer = hawk();
    let mut slots = Slots::new(0);
    let ids = [slots.add(&layer), slots.add(&layer), slots.add(&layer)];
    let lengths = [3, 0, 7];
    let x = draw(10);
    slots
        .prefill(&layer, &ids, x.clone().reshape([1, 10, WIDTH]), &Sequences::of_lengths(&lengths))
        .expect("a prefill");
    let next = draw(3);
    let y = slots.step(&layer, &ids, next.clone()).expect("a step");
    let told = [Some(x.clone().narrow(0, 0, 3)), None, Some(x.narrow(0, 3, 7))];
    for (i, told) in told.into_iter().enumerate() {
        let tokens: Vec<_> = told.into_iter().chain([next.clone().narrow(0, i, 1)]).collect();
        same("after a packed prompt", y.clone().narrow(0, i, 1), &alone(&layer, &tokens));
    }
}

#[test]
fn what_cannot_be_done_moves_nothing() {
    let layer = hawk();
    let mut slots = Slots::new(2);
    let slot = slots.add(&layer);
    for _ in 0..5 {
        slots.step(&layer, &[slot], draw(1)).expect("a step");
    }
    let back = |to, position| Err(SlotError::History { slot, position, to });
    assert_eq!(slots.roll_back(slot, 3), back(Some(2), 5), "only two steps are kept");
    assert_eq!(slots.roll_back(slot, 6), back(None, 5));
    assert_eq!(slots.step(&layer, &[slot, slot], draw(2)).expect_err("twice"), SlotError::Twice { slot });
    assert_eq!(
        slots.step(&layer, &[slot], draw(2)).expect_err("two rows"),
        SlotError::Count { slots: 1, sequences: 2 }
    );
    let narrow = Tensor::zeros([1, WIDTH - 1], &Device::flex());
    let error = slots.step(&layer, &[slot], narrow).expect_err("too narrow");
    let (expected, got) = (vec![1, 1, WIDTH], vec![1, 1, WIDTH - 1]);
    assert_eq!(error, SlotError::Layer(Error::Shape { tensor: "x", expected, got }));
    assert_eq!(slots.position(slot), Ok(5));
    assert_eq!(slots.roll_back(slot, 2), Ok(()));
    assert_eq!(slots.position(slot), Ok(3));
    let none = slots.step(&layer, &[], Tensor::zeros([0, WIDTH], &Device::flex())).expect("no slot at all");
    assert_eq!(none.dims(), [0, WIDTH]);
}
