//! Which kernels run over which slabs: forward, backward and step as passes of a [`Builder`].

use ssm_core::{Algorithm, Checkpoint, DType, GatedScan, Grads, Operand, ScanBackward};

use crate::dispatch::{BACKWARD, READ_STATE, RESUME, Schedule, WRITE_STATE};
use crate::grid::{DeviceLimits, Grid, Slab, Tile};
use crate::schedule::{Builder, Call, SavedRows, StateRows};
use crate::shader::{AGGREGATE, Body, CARRY, CARRY_BATCH, PLANES, Save, Slot, Slots, TURNS};

/// Where a carry starts and where it is left.
#[derive(Clone, Copy, Debug)]
struct Ends {
    start: Option<Operand>,
    end: Option<Operand>,
    backward: bool,
}

/// What a forward pass writes.
#[derive(Clone, Copy, Debug)]
struct ForwardPass {
    y: bool,
    save: Save,
    saved: SavedRows,
    ends: Ends,
}

const fn save_of(policy: Checkpoint) -> Save {
    match policy {
        Checkpoint::Nothing => Save::Nothing,
        Checkpoint::ChunkStates => Save::Chunks,
        Checkpoint::FullH => Save::H,
    }
}

/// Forward over the whole problem, or a step on a state in place.
pub(crate) fn forward(
    problem: &GatedScan,
    grid: &Grid,
    limits: &DeviceLimits,
    algorithm: Algorithm,
    step: bool,
) -> Schedule {
    let save = if step { Save::Nothing } else { save_of(problem.checkpoint()) };
    let state = step.then_some(Operand::State);
    let ends = Ends {
        start: state.or(problem.has_initial_state().then_some(Operand::H0)),
        end: state.or(problem.wants_final_state().then_some(Operand::FinalState)),
        backward: false,
    };
    let mut builder = Builder::new(problem, grid, limits);
    if !has_steps(grid) {
        states_only(&mut builder, ends);
    } else {
        let pass = ForwardPass { y: true, save, saved: SavedRows::Caller, ends };
        for tile in grid.tiles(problem, limits) {
            builder.release();
            builder.forward_tile(algorithm, &pass, &tile);
        }
    }
    builder.zero_slack(Operand::Y, problem.out_dtype());
    if save == Save::H {
        builder.zero_slack(Operand::Saved, DType::F32);
    }
    builder.out
}

/// Backward over the whole problem.
pub(crate) fn backward(
    op: &ScanBackward,
    grid: &Grid,
    limits: &DeviceLimits,
    algorithm: Algorithm,
) -> Schedule {
    let (problem, grads) = (ssm_core::Op::problem(op), op.grads());
    let ends = Ends {
        start: op.has_final_state().then_some(Operand::DFinalState),
        end: grads.h0.then_some(Operand::Dh0),
        backward: true,
    };
    let mut builder = Builder::new(problem, grid, limits);
    if !has_steps(grid) {
        states_only(&mut builder, ends);
    } else {
        for tile in grid.tiles(problem, limits) {
            builder.release();
            builder.backward_tile(algorithm, grads, ends, &tile);
        }
    }
    let wanted =
        [(grads.x, Operand::Dx), (grads.a, Operand::Da), (grads.b, Operand::Db), (grads.c, Operand::Dc)];
    for (_, operand) in wanted.into_iter().filter(|(wanted, _)| *wanted) {
        builder.zero_slack(operand, problem.dtype());
    }
    builder.out
}

fn has_steps(grid: &Grid) -> bool {
    grid.first_row(grid.sequences) > 0
}

/// Sequences without a step: the final state is the initial one.
fn states_only(builder: &mut Builder<'_>, ends: Ends) {
    let Some(end) = ends.end else { return };
    if ends.start == Some(end) {
        return;
    }
    for tile in builder.grid.tiles(builder.problem, builder.limits) {
        let from = ends.start.map(|operand| builder.caller_state(operand, &tile));
        let to = builder.caller_state(end, &tile);
        builder.copy_state(&tile, from, to);
    }
}

/// The gradients that one kernel writes, each with the operands it needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outputs {
    dx: bool,
    db: bool,
    da: bool,
    dc: bool,
    /// The carry itself: dh0.
    carry: bool,
}

impl Outputs {
    fn needs_g(self) -> bool {
        self.dx || self.db || self.da || self.carry
    }

    /// The bindings of `march` (with a state) or `apply` (with aggregates).
    fn slots(self, problem: &GatedScan, save: Save, march: bool, state: bool) -> Slots {
        let (g, h) = (self.needs_g(), self.da || self.dc);
        let rebuilt = h && save != Save::H;
        Slots::of(&[
            (Slot::X, self.db || rebuilt),
            (Slot::A, g || rebuilt),
            (Slot::B, problem.has_b() && (self.dx || rebuilt)),
            (Slot::C, problem.has_c() && g),
            (Slot::Dy, g || self.dc),
            (Slot::Saved, h),
            (Slot::State, march && g && state),
            (Slot::Agg, !march && g),
            (Slot::H0, save == Save::H && self.da && problem.has_initial_state()),
            (Slot::Dx, self.dx),
            (Slot::Da, self.da),
            (Slot::Db, self.db),
            (Slot::Dc, self.dc),
        ])
    }

    /// Splits the gradients over as few kernels as the bindings allow, each as full as it can be.
    fn passes(grads: Grads, carry: bool, fits: impl Fn(Self) -> bool) -> Vec<Self> {
        type Set = fn(&mut Outputs);
        let one: [(bool, Set); 5] = [
            (carry, |o| o.carry = true),
            (grads.x, |o| o.dx = true),
            (grads.b, |o| o.db = true),
            (grads.a, |o| o.da = true),
            (grads.c, |o| o.dc = true),
        ];
        let mut passes: Vec<Self> = Vec::new();
        for (_, set) in one.into_iter().filter(|(wanted, _)| *wanted) {
            let mut grown = passes.last().copied().unwrap_or_default();
            set(&mut grown);
            match passes.last_mut() {
                Some(last) if fits(grown) => *last = grown,
                _ => {
                    let mut alone = Self::default();
                    set(&mut alone);
                    passes.push(alone);
                }
            }
        }
        passes
    }
}

impl Builder<'_> {
    /// Runs a carry through slabs: places its state, starts it, and hands every slab the state, the flags and whether
    /// the carry pauses between slabs, in `planes` planes of the workspace.
    fn through(
        &mut self,
        tile: &Tile,
        slabs: &[Slab],
        ends: Ends,
        planes: u64,
        mut emit: impl FnMut(&mut Self, &Slab, Option<StateRows>, u32, bool),
    ) {
        let paused = slabs.iter().any(|slab| slab.steps.is_some());
        let start = ends.start.map(|operand| self.caller_state(operand, tile));
        let end = ends.end.map(|operand| self.caller_state(operand, tile));
        let state = if paused { Some(self.work_state(tile, planes)) } else { end.or(start) };
        if let (Some(from), Some(to)) = (start, state)
            && from != to
        {
            self.copy_state(tile, Some(from), to);
        }
        let writes = if end.is_some() || paused { WRITE_STATE } else { 0 };
        let base = writes | if ends.backward { BACKWARD } else { 0 };
        let ordered: Vec<&Slab> =
            if ends.backward { slabs.iter().rev().collect() } else { slabs.iter().collect() };
        let mut before = None;
        for slab in ordered {
            // A sequence's later pieces go on where the one before left off.
            let goes_on = slab.steps.is_some() && before == Some(slab.seqs.start);
            before = slab.steps.is_some().then_some(slab.seqs.start);
            let reads = match (goes_on, start) {
                (true, _) => READ_STATE | RESUME,
                (false, Some(_)) => READ_STATE,
                (false, None) => 0,
            };
            emit(self, slab, state, base | reads, paused);
        }
        if let (true, Some(from), Some(to)) = (paused, state, end) {
            self.copy_state(tile, Some(from), to);
        }
    }

    fn slabs_by_step(&self, tile: &Tile, saved: SavedRows) -> Vec<Slab> {
        self.grid.slabs(&tile.seqs, &self.fit(tile, saved), self.grid.chunk)
    }

    fn slabs_by_group(&self, tile: &Tile, saved: SavedRows) -> Vec<Slab> {
        let mut fit = self.fit(tile, saved);
        fit.groups = (self.limits.binding / (AGGREGATE * 4) / tile.width).min(self.grid.most_items());
        // An invocation walks one group.
        fit.steps = u64::MAX;
        self.grid.slabs(&tile.seqs, &fit, self.grid.group)
    }

    /// Room for the tile's aggregates, and one more to bind where a slab has none.
    fn borrow_aggregates(&mut self, tile: &Tile) -> u64 {
        let groups = self.grid.groups_before(tile.seqs.end) - self.grid.groups_before(tile.seqs.start);
        self.borrow((groups + 1) * AGGREGATE * tile.width)
    }

    fn fold_groups(&mut self, tile: &Tile, agg: u64, ends: Ends) {
        let mut fit = self.fit(tile, SavedRows::Work(0));
        (fit.rows, fit.chunks) = (u64::MAX, u64::MAX);
        fit.groups = self.limits.binding / (AGGREGATE * 4) / tile.width;
        fit.steps = u64::from(TURNS * CARRY_BATCH) * self.grid.group;
        let slabs = self.grid.slabs(&tile.seqs, &fit, self.grid.group);
        let call = Call { agg, ..Call::new(Body::Carry, Slots::default()) };
        self.through(tile, &slabs, ends, CARRY, |builder, slab, state, flags, paused| {
            builder.carry(&Call { flags, state, paused, ..call }, tile, slab);
        });
    }

    fn forward_tile(&mut self, algorithm: Algorithm, pass: &ForwardPass, tile: &Tile) {
        let problem = self.problem;
        let inputs = |y: bool| {
            [
                (Slot::X, true),
                (Slot::A, true),
                (Slot::B, problem.has_b()),
                (Slot::C, y && problem.has_c()),
                (Slot::Y, y),
            ]
        };
        let outputs = Slots::of(&inputs(pass.y));
        let outputs = if pass.save == Save::Nothing { outputs } else { outputs.with(Slot::Saved) };
        let call = Call {
            save: pass.save,
            saved: pass.saved,
            fold: algorithm != Algorithm::Sequential,
            ..Call::new(Body::ForwardMarch, outputs)
        };
        if algorithm != Algorithm::Chunked {
            let slabs = self.slabs_by_step(tile, pass.saved);
            return self.through(tile, &slabs, pass.ends, PLANES, |builder, slab, state, flags, paused| {
                let slots = if state.is_some() { outputs.with(Slot::State) } else { outputs };
                builder.scan(&Call { slots, flags, state, paused, ..call }, tile, slab);
            });
        }
        let agg = self.borrow_aggregates(tile);
        let slabs = self.slabs_by_group(tile, pass.saved);
        let reduce = Call {
            body: Body::ForwardReduce,
            slots: Slots::of(&inputs(false)).with(Slot::Agg),
            save: Save::Nothing,
            agg,
            ..call
        };
        for slab in &slabs {
            self.scan(&reduce, tile, slab);
        }
        self.fold_groups(tile, agg, pass.ends);
        let apply = Call { body: Body::ForwardApply, slots: outputs.with(Slot::Agg), agg, ..call };
        for slab in &slabs {
            self.scan(&apply, tile, slab);
        }
    }

    fn backward_tile(&mut self, algorithm: Algorithm, grads: Grads, ends: Ends, tile: &Tile) {
        let problem = self.problem;
        let (mut save, mut saved) = (save_of(problem.checkpoint()), SavedRows::Caller);
        if save == Save::Nothing && grads.need_h() {
            let (first, last) = (tile.seqs.start, tile.seqs.end);
            let chunks = self.grid.chunks_before(last) - self.grid.chunks_before(first);
            saved = SavedRows::Work(self.borrow(chunks.max(1) * tile.width));
            save = Save::Chunks;
            let start = problem.has_initial_state().then_some(Operand::H0);
            let ends = Ends { start, end: None, backward: false };
            self.forward_tile(algorithm, &ForwardPass { y: false, save, saved, ends }, tile);
        }
        let call = Call {
            save,
            saved,
            fold: algorithm != Algorithm::Sequential,
            ..Call::new(Body::BackwardMarch, Slots::default())
        };
        let buffers = self.limits.buffers;
        if algorithm != Algorithm::Chunked {
            let slabs = self.slabs_by_step(tile, saved);
            // A state is bound when there is an end to keep, or when the march pauses.
            let state = ends.start.is_some() || ends.end.is_some() || slabs.iter().any(|s| s.steps.is_some());
            let fits = |o: Outputs| o.slots(problem, save, true, state).count() <= buffers;
            for outputs in Outputs::passes(grads, grads.h0, fits) {
                let ends = Ends {
                    start: ends.start.filter(|_| outputs.needs_g()),
                    end: ends.end.filter(|_| outputs.carry),
                    backward: true,
                };
                self.through(tile, &slabs, ends, PLANES, |builder, slab, state, flags, paused| {
                    let slots = outputs.slots(problem, save, true, state.is_some());
                    // dc alone has no carry to pause.
                    let (flags, paused) = if outputs.needs_g() { (flags, paused) } else { (BACKWARD, false) };
                    builder.scan(&Call { slots, flags, state, paused, ..call }, tile, slab);
                });
            }
            return;
        }
        let agg = self.borrow_aggregates(tile);
        let slabs = self.slabs_by_group(tile, saved);
        // dc alone has no carry.
        if grads.x || grads.b || grads.a || grads.h0 {
            let slots = Slots::of(&[
                (Slot::A, true),
                (Slot::C, problem.has_c()),
                (Slot::Dy, true),
                (Slot::Agg, true),
            ]);
            let reduce = Call { body: Body::BackwardReduce, slots, save: Save::Nothing, agg, ..call };
            for slab in &slabs {
                self.scan(&reduce, tile, slab);
            }
            self.fold_groups(tile, agg, ends);
        }
        let fits = |o: Outputs| o.slots(problem, save, false, false).count() <= buffers;
        for outputs in Outputs::passes(grads, false, fits) {
            let slots = outputs.slots(problem, save, false, false);
            let apply = Call { body: Body::BackwardApply, slots, agg, ..call };
            for slab in &slabs {
                self.scan(&apply, tile, slab);
            }
        }
    }
}
