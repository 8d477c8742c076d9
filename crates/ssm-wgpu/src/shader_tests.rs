//! Every kernel that a plan can ask for, validated by naga without an adapter, and its bindings against the layout
//! that the plan binds.

use std::collections::HashSet;

use naga::valid::{Capabilities, ValidationFlags, Validator};
use ssm_core::{Algorithm, Checkpoint, DType, GatedScan, Grads};

use crate::dispatch::{Dispatch, Schedule};
use crate::grid::{DeviceLimits, Grid};
use crate::passes;
use crate::pipeline::layout_entries;
use crate::shader::{Body, CHUNK, COLUMNS, Form, Key, PipelineKey, ROWS, SOFTWARE_CHUNK, SPAN, source};

/// What every WebGPU device has.
pub(crate) const LEAST: DeviceLimits =
    DeviceLimits { binding: (128 << 20) - 520, buffer: 256 << 20, buffers: 8, chunk: CHUNK };
const MOST: DeviceLimits =
    DeviceLimits { binding: u32::MAX as u64 - 520, buffer: u64::MAX, buffers: 32, chunk: CHUNK };
const SOFTWARE: DeviceLimits = DeviceLimits { chunk: SOFTWARE_CHUNK, ..MOST };

/// Schedules over every option and algorithm.
pub(crate) fn schedules(limits: &DeviceLimits) -> Vec<Schedule> {
    let mut schedules = Vec::new();
    let types = [
        (DType::F32, DType::F32),
        (DType::F16, DType::F16),
        (DType::Bf16, DType::Bf16),
        (DType::F16, DType::F32),
        (DType::F32, DType::Bf16),
    ];
    for (dtype, out) in types {
        for options in 0..64_u32 {
            let on = |bit: u32| options >> bit & 1 == 1;
            // Types change accessors alone: all options with f32, the ends of their range with the others.
            if dtype.size() + out.size() < 8 && !matches!(options & 15, 0 | 15) {
                continue;
            }
            for policy in Checkpoint::ALL {
                let (batch, len, channels) = if on(4) { (1, 200, 6) } else { (3, 200, 6) };
                let builder =
                    GatedScan::builder(batch, len, channels).dtype(dtype).out_dtype(out).b(on(0)).c(on(1));
                let builder =
                    builder.initial_state(on(2)).final_state(on(3)).checkpoint(policy).reverse(on(5));
                let builder = if on(4) { builder.cu_seqlens(&[0, 0, 70, 199]) } else { builder };
                let problem = builder.build().unwrap();
                let grid = Grid::new(&problem, limits);
                for algorithm in [Algorithm::Sequential, Algorithm::March, Algorithm::Chunked] {
                    schedules.push(passes::forward(&problem, &grid, limits, algorithm, false));
                    let backward = problem.backward(Grads::all(&problem)).unwrap();
                    let backward = if on(3) { backward.with_final_state() } else { backward };
                    schedules.push(passes::backward(&backward, &grid, limits, algorithm));
                    if let Ok(step) = problem.step() {
                        schedules.push(passes::forward(
                            ssm_core::Op::problem(&step),
                            &grid,
                            limits,
                            algorithm,
                            true,
                        ));
                    }
                }
            }
        }
    }
    // A row that no binding holds: the march pauses.
    let wide = GatedScan::builder(1, 40, 3 << 20).initial_state(true).final_state(true).build().unwrap();
    let grid = Grid::new(&wide, &LEAST);
    schedules.push(passes::forward(&wide, &grid, &LEAST, Algorithm::March, false));
    let backward = wide.backward(Grads::all(&wide)).unwrap();
    schedules.push(passes::backward(&backward, &grid, &LEAST, Algorithm::March));
    schedules
}

fn keys() -> HashSet<Key> {
    let mut keys = HashSet::new();
    for limits in [LEAST, MOST, SOFTWARE] {
        for schedule in schedules(&limits) {
            keys.extend(schedule.dispatches.iter().map(|dispatch| dispatch.key));
        }
    }
    keys
}

fn forms(key: &Key) -> Vec<Form> {
    let narrow = |slot| key.dtype_of(slot).size() == 2;
    if !key.slots.iter().any(narrow) {
        return vec![Form::Scalar];
    }
    let mut forms = vec![Form::Pairs, Form::Halves];
    if matches!(key.body, Body::ForwardMarch | Body::BackwardMarch) {
        forms.push(Form::Joined);
        if !key.paused && key.chunk == SPAN {
            forms.push(Form::Spans);
            if key.body == Body::BackwardMarch
                && !key.packed
                && key.dtype.size() == 2
                && key.out_dtype.size() == 2
            {
                forms.push(Form::Turned);
            }
        }
    }
    if key.slots.iter().any(|slot| narrow(slot) && key.writes(slot)) {
        forms.push(Form::Neighbours);
    }
    forms
}

#[test]
fn every_kernel_is_valid_and_binds_what_the_plan_binds() {
    let keys = keys();
    for body in Body::ALL {
        assert!(keys.iter().any(|key| key.body == body), "no schedule asks for {body:?}");
    }
    assert!(keys.iter().any(|key| key.paused), "no schedule pauses a march");
    for key in keys {
        // bf16 needs no feature of the adapter.
        let halves = key.slots.iter().any(|slot| key.dtype_of(slot) == DType::F16);
        let needs = if halves { Capabilities::SHADER_FLOAT16_IN_FLOAT32 } else { Capabilities::empty() };
        for form in forms(&key) {
            // Only what passes from neighbour to neighbour needs subgroups.
            let subgroups = matches!(form, Form::Joined | Form::Neighbours | Form::Turned);
            let needs = if subgroups { needs | Capabilities::SUBGROUP } else { needs };
            let mut validator = Validator::new(ValidationFlags::all(), needs);
            for shared in [false, true] {
                let key = PipelineKey { key, form, shared, fused: !shared, packs: shared, level: shared };
                let text = source(&key);
                let module = match naga::front::wgsl::parse_str(&text) {
                    Ok(module) => module,
                    Err(error) => panic!("{key:?}: {}", error.emit_to_string(&text)),
                };
                let info = match validator.validate(&module) {
                    Ok(info) => info,
                    Err(error) => panic!("{key:?}: {}", error.emit_to_string(&text)),
                };
                let entry = module.entry_points.iter().position(|e| e.name == key.key.body.entry());
                let entry = entry.unwrap_or_else(|| panic!("{key:?} has no entry {}", key.key.body.entry()));
                check_bindings(&key, &module, info.get_entry_point(entry));
            }
        }
    }
}

/// The shader's used bindings are in the layout, and the layout has none that the shader lacks.
fn check_bindings(key: &PipelineKey, module: &naga::Module, info: &naga::valid::FunctionInfo) {
    use naga::{AddressSpace, StorageAccess};
    let entries = layout_entries(key);
    let mut declared = HashSet::new();
    for (handle, variable) in module.global_variables.iter() {
        let Some(binding) = &variable.binding else { continue };
        declared.insert(binding.binding);
        let entry = entries.iter().find(|entry| entry.binding == binding.binding);
        let Some(entry) = entry else {
            assert!(
                info[handle].is_empty(),
                "{key:?} uses binding {} that the plan does not bind",
                binding.binding
            );
            continue;
        };
        let wgpu::BindingType::Buffer { ty, .. } = entry.ty else { panic!("{entry:?} is no buffer") };
        match (variable.space, ty) {
            (AddressSpace::Uniform, wgpu::BufferBindingType::Uniform) => {}
            (AddressSpace::Storage { access }, wgpu::BufferBindingType::Storage { read_only }) => {
                assert_eq!(!access.contains(StorageAccess::STORE), read_only, "{key:?}, {}", binding.binding);
            }
            (space, ty) => panic!("{key:?}: binding {} is {space:?} here and {ty:?} there", binding.binding),
        }
    }
    for entry in entries {
        assert!(declared.contains(&entry.binding), "{key:?} lacks binding {}", entry.binding);
    }
}

#[test]
fn the_question_after_the_order_of_subgroups_is_valid() {
    let text = include_str!("../wgsl/subgroup_order.wgsl");
    let module = naga::front::wgsl::parse_str(&format!("const WORKGROUP: u32 = 64u;\n{text}")).unwrap();
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::SUBGROUP);
    validator.validate(&module).unwrap();
}

#[test]
fn the_question_after_the_rounding_of_halves_is_valid() {
    let module = naga::front::wgsl::parse_str(&crate::asked::half_rounding()).unwrap();
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32);
    validator.validate(&module).unwrap();
}

#[test]
fn unrolling_numbers_the_steps() {
    let problem = GatedScan::builder(1, 200, 4).build().unwrap();
    let grid = Grid::new(&problem, &LEAST);
    let schedule = passes::forward(&problem, &grid, &LEAST, Algorithm::March, false);
    let key = PipelineKey {
        key: schedule.dispatches[0].key,
        form: Form::Scalar,
        shared: false,
        fused: true,
        packs: false,
        level: true,
    };
    let text = source(&key);
    assert!(text.contains("let x15 = fetch_x(i + 15u * p.step);"));
    assert!(!text.contains('$') && !text.contains("//@"), "the text still holds marks");
}

#[test]
fn schedules_keep_to_the_limits_of_every_device() {
    for limits in [LEAST, MOST] {
        for schedule in schedules(&limits) {
            for dispatch in &schedule.dispatches {
                assert!(dispatch.key.slots.count() <= limits.buffers, "{:?}", dispatch.key);
                assert_eq!(dispatch.key.slots.count() as usize, dispatch.windows.len(), "{:?}", dispatch.key);
                for window in &dispatch.windows {
                    let bytes = window.len * dispatch.key.dtype_of(window.slot).size();
                    assert!(window.len > 0 && bytes <= limits.binding, "{:?} of {:?}", window, dispatch.key);
                }
            }
        }
    }
}

/// How often the loops of one invocation turn at most, the turns that only leave a loop counted.
fn turns(schedule: &Schedule, dispatch: &Dispatch) -> u64 {
    let (key, p) = (&dispatch.key, &dispatch.params);
    // The longest of the sequences, or the longest run of groups.
    let len = match &dispatch.table {
        Some(table) => schedule.table[table.clone()].iter().map(|entry| entry[1]).max().unwrap_or(0),
        None => p.len,
    };
    let chunk = u64::from(key.chunk);
    match key.body {
        Body::ForwardMarch | Body::BackwardMarch => {
            let steps = u64::from(len.min(p.to_step).saturating_sub(p.from_step));
            // A tail goes step by step, backward once more for h; a group's loop is left once.
            let alone = steps / chunk + 2 * (steps / u64::from(p.group) + 2) + 3 * chunk;
            if chunk != u64::from(SPAN) || key.paused {
                return alone;
            }
            // A round of the first row turns once for each row, and its three loops once more; before the first the
            // workgroup's items are looked at.
            let rounds = steps.div_ceil(u64::from(ROWS * SPAN));
            alone.max(rounds * u64::from(ROWS + 3) + u64::from(COLUMNS) + 3 * chunk + 3)
        }
        Body::ForwardReduce | Body::ForwardApply | Body::BackwardReduce | Body::BackwardApply => {
            u64::from(p.group) / chunk + 3 * chunk + 1
        }
        // Before the first batch the workgroup's items are looked at.
        Body::Carry => u64::from(len) / chunk + chunk + u64::from(COLUMNS) + 6,
        Body::CopyState | Body::Fill => 0,
    }
}

#[test]
fn no_invocation_turns_its_loops_as_often_as_an_adapter_may_stop_them() {
    let long: [(usize, &[usize]); 5] = [
        (1 << 20, &[]),
        ((1 << 18) + 1, &[]),
        (i32::MAX as usize, &[]),
        (3 << 20, &[0, 5, 1 << 19, (3 << 20) - 1]),
        (200_000, &[0, 100_000]),
    ];
    let devices = [MOST, SOFTWARE];
    for ((len, cu), limits) in long.into_iter().flat_map(|case| devices.map(|limits| (case, limits))) {
        for reverse in [false, true] {
            let builder = GatedScan::builder(1, len, 2).reverse(reverse);
            let builder = if cu.is_empty() { builder } else { builder.cu_seqlens(cu) };
            let problem = builder.final_state(true).build().unwrap();
            let backward = problem.backward(Grads::all(&problem)).unwrap();
            let grid = Grid::new(&problem, &limits);
            for algorithm in [Algorithm::Sequential, Algorithm::March, Algorithm::Chunked] {
                let forward = passes::forward(&problem, &grid, &limits, algorithm, false);
                for schedule in [forward, passes::backward(&backward, &grid, &limits, algorithm)] {
                    for dispatch in &schedule.dispatches {
                        let turns = turns(&schedule, dispatch);
                        assert!(turns < 65_535 / 2, "{turns} in {:?} at {len} steps", dispatch.key.body);
                    }
                }
            }
        }
    }
}
