//! From a kernel's key to its WGSL: the files of `kernels/wgsl` behind generated accessors.
//!
//! A kernel's text does not know element types, word sharing or absent operands. It calls `fetch_x`, `x_bits`, `x_of` and
//! `store_y`; what these do is generated here from the key, so that every option folds away when the driver compiles.

use ssm_core::DType;

use crate::accessors;

/// Invocations a workgroup, a lane each.
pub(crate) const WORKGROUP: u32 = 64;
/// Lanes of a workgroup whose rows take the spans of a group side by side, a word each, and its rows: as many as the
/// shortest group has spans.
pub(crate) const COLUMNS: u32 = 32;
pub(crate) const ROWS: u32 = 4;
/// Steps a chunk: what an invocation loads at once and keeps in registers, and the spacing of the saved states.
pub(crate) const CHUNK: u32 = 16;
/// The same where the adapter is a program on the processor: there are no loads to overlap, and such an adapter takes
/// half a second to compile a kernel whose chunk is unrolled 16 times.
pub(crate) const SOFTWARE_CHUNK: u32 = 4;
/// Groups that the carry pass folds a turn.
pub(crate) const CARRY_BATCH: u32 = 16;
/// Rows of the carry pass's workgroup: one folds, four load and store, of which each has what is between `//@quarters`.
const CARRY_ROWS: u32 = 5;
const _: () = assert!(CARRY_ROWS == 1 + 4 && CARRY_BATCH.is_multiple_of(4));
/// Steps that h is the plain loop's for, whatever the chunk: it shows in the bits.
pub(crate) const SPAN: u32 = 16;
/// Chunks, or batches of groups, that one invocation walks at most. Mesa's software adapters stop every loop of an
/// invocation, without a word, once its loops have turned 65,535 times in all, the turns that only leave a loop
/// counted; and everywhere a driver may take a device for hung whose dispatch runs for seconds. A walk turns once a
/// chunk, twice a group and at most 46 times in the tail of a sequence: a quarter of the bound leaves room for all.
pub(crate) const TURNS: u32 = 16_384;
/// Values an aggregate holds: S and P in two parts each.
pub(crate) const AGGREGATE: u64 = 4;
/// Planes of a paused march's state, as fold.wgsl has them.
pub(crate) const PLANES: u64 = 13;
/// Values a carry holds: the value, and what its roundings took.
pub(crate) const CARRY: u64 = 2;
/// Table entries that fit the uniform binding that every WebGPU device has (64 KiB).
pub(crate) const TABLE: u32 = 4096;

/// An operand's place in the shader: binding `FIRST_BINDING + slot`, and its entry in `Params::offsets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Slot {
    X,
    A,
    B,
    C,
    Dy,
    Saved,
    State,
    Agg,
    H0,
    Y,
    Dx,
    Da,
    Db,
    Dc,
}

/// The first storage binding; the uniforms lie before it.
pub(crate) const FIRST_BINDING: u32 = 2;

impl Slot {
    pub(crate) const ALL: [Self; 14] = [
        Self::X,
        Self::A,
        Self::B,
        Self::C,
        Self::Dy,
        Self::Saved,
        Self::State,
        Self::Agg,
        Self::H0,
        Self::Y,
        Self::Dx,
        Self::Da,
        Self::Db,
        Self::Dc,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::X => "x",
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
            Self::Dy => "dy",
            Self::Saved => "saved",
            Self::State => "state",
            Self::Agg => "agg",
            Self::H0 => "h0",
            Self::Y => "y",
            Self::Dx => "dx",
            Self::Da => "da",
            Self::Db => "db",
            Self::Dc => "dc",
        }
    }

    pub(crate) const fn binding(self) -> u32 {
        FIRST_BINDING + self as u32
    }

    /// Whether it is one of the tensors of (B, L, D).
    pub(crate) const fn is_tensor(self) -> bool {
        !matches!(self, Self::Saved | Self::State | Self::Agg | Self::H0)
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }

    /// What an absent operand reads as: b and c are ones, everything else zero.
    pub(crate) const fn neutral(self) -> &'static str {
        match self {
            Self::B | Self::C => "1.0",
            _ => "0.0",
        }
    }
}

/// A set of slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Slots(u16);

impl Slots {
    pub(crate) fn of(slots: &[(Slot, bool)]) -> Self {
        Self(slots.iter().filter(|(_, present)| *present).fold(0, |bits, (slot, _)| bits | slot.bit()))
    }

    pub(crate) fn has(self, slot: Slot) -> bool {
        self.0 & slot.bit() != 0
    }

    pub(crate) fn with(self, slot: Slot) -> Self {
        Self(self.0 | slot.bit())
    }

    pub(crate) fn count(self) -> u32 {
        self.0.count_ones()
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Slot> {
        Slot::ALL.into_iter().filter(move |slot| self.has(*slot))
    }
}

/// One entry point of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Body {
    ForwardMarch,
    ForwardReduce,
    ForwardApply,
    BackwardMarch,
    BackwardReduce,
    BackwardApply,
    Carry,
    CopyState,
    Fill,
}

impl Body {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 9] = [
        Self::ForwardMarch,
        Self::ForwardReduce,
        Self::ForwardApply,
        Self::BackwardMarch,
        Self::BackwardReduce,
        Self::BackwardApply,
        Self::Carry,
        Self::CopyState,
        Self::Fill,
    ];

    pub(crate) const fn entry(self) -> &'static str {
        match self {
            Self::ForwardMarch | Self::BackwardMarch => "march",
            Self::ForwardReduce | Self::BackwardReduce => "reduce",
            Self::ForwardApply | Self::BackwardApply => "apply",
            Self::Carry => "carry_groups",
            Self::CopyState => "copy",
            Self::Fill => "fill",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::ForwardMarch | Self::ForwardReduce | Self::ForwardApply => {
                include_str!("../wgsl/scan_forward.wgsl")
            }
            Self::BackwardMarch | Self::BackwardReduce | Self::BackwardApply => {
                include_str!("../wgsl/scan_backward.wgsl")
            }
            Self::Carry => include_str!("../wgsl/scan_carry.wgsl"),
            Self::CopyState => include_str!("../wgsl/state_copy.wgsl"),
            Self::Fill => include_str!("../wgsl/fill.wgsl"),
        }
    }
}

/// What forward leaves in `saved`, and backward finds there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Save {
    Nothing,
    Chunks,
    H,
}

/// What a plan knows of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) body: Body,
    pub(crate) slots: Slots,
    pub(crate) dtype: DType,
    pub(crate) out_dtype: DType,
    /// Items come from the table.
    pub(crate) packed: bool,
    pub(crate) save: Save,
    /// The march goes over several dispatches.
    pub(crate) paused: bool,
    /// Steps loaded together.
    pub(crate) chunk: u32,
}

impl Key {
    /// The element type of a slot.
    pub(crate) const fn dtype_of(&self, slot: Slot) -> DType {
        match slot {
            Slot::X | Slot::A | Slot::B | Slot::C | Slot::Dx | Slot::Da | Slot::Db | Slot::Dc => self.dtype,
            Slot::Y | Slot::Dy => self.out_dtype,
            Slot::Saved | Slot::State | Slot::Agg | Slot::H0 => DType::F32,
        }
    }

    /// Whether the kernel writes the slot.
    pub(crate) const fn writes(&self, slot: Slot) -> bool {
        match slot {
            Slot::Y | Slot::Dx | Slot::Da | Slot::Db | Slot::Dc | Slot::State => true,
            Slot::Saved => matches!(self.body, Body::ForwardMarch | Body::ForwardApply | Body::Fill),
            Slot::Agg => !matches!(self.body, Body::ForwardApply | Body::BackwardApply),
            Slot::X | Slot::A | Slot::B | Slot::C | Slot::Dy | Slot::H0 => false,
        }
    }
}

/// How the channels of a lane lie in memory: known once the operands are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// No 16-bit type: a channel a lane.
    Scalar,
    /// Every row of a 16-bit operand begins on a word: two channels a lane, and no word has two writers.
    Pairs,
    /// Rows of a 16-bit operand begin or end inside a word, whose halves have two writers: a channel a lane, each
    /// clearing and setting its own half atomically, which leaves the same word in either order.
    Halves,
    /// As `Pairs`, in a march on a device with subgroups: a channel a lane, since a march has no lanes to spare. Both of
    /// a word's lanes read it; the lower takes the other's half by a shuffle and writes it.
    Joined,
    /// As `Halves`, on a device with subgroups: of two lanes that are neighbours in a subgroup, one writes the word for
    /// both. What is left to atomics is words that lanes of two rows or two subgroups share.
    Neighbours,
    /// As `Pairs`, in a march whose lanes have as many invocations as a workgroup has rows, which take the spans of a
    /// group side by side.
    Spans,
    /// As `Spans`, where tensors are 16-bit throughout, on a device with subgroups: a channel a lane, for half the
    /// registers. Of two steps' words each of a word's lanes loads and writes one, and they swap halves, so that a
    /// word in registers is two steps of one channel.
    Turned,
}

impl Form {
    /// Channels a lane.
    pub(crate) const fn lane(self) -> u32 {
        match self {
            Self::Pairs | Self::Spans => 2,
            Self::Scalar | Self::Halves | Self::Joined | Self::Neighbours | Self::Turned => 1,
        }
    }

    /// Lanes a workgroup, and invocations a lane. Where spans are side by side a row of lanes takes 128 bytes of every
    /// step's: half of it fetches the same lines of memory twice, from two workgroups.
    pub(crate) const fn workgroup(self) -> (u32, u32) {
        match self {
            Self::Spans => (COLUMNS, ROWS),
            Self::Turned => (2 * COLUMNS, ROWS),
            Self::Scalar | Self::Pairs | Self::Halves | Self::Joined | Self::Neighbours => (WORKGROUP, 1),
        }
    }
}

/// Everything that a compiled pipeline depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PipelineKey {
    pub(crate) key: Key,
    pub(crate) form: Form,
    /// Every binding is read_write, because one buffer holds both inputs and outputs and its usage counts as a whole.
    pub(crate) shared: bool,
    /// The adapter's fma is known to round once.
    pub(crate) fused: bool,
    /// The adapter's conversion to f16 is known to round to nearest even; false for kernels without f16.
    pub(crate) packs: bool,
    /// All tensors begin at the same element of their bindings, at that of x's place in the offsets: one index, worked
    /// out once, for all of them.
    pub(crate) level: bool,
}

impl PipelineKey {
    /// Lanes a workgroup, and invocations a lane.
    pub(crate) const fn workgroup(&self) -> (u32, u32) {
        match self.key.body {
            Body::Carry => (COLUMNS, CARRY_ROWS),
            _ => self.form.workgroup(),
        }
    }

    const fn text(&self) -> &'static str {
        match (self.form, self.key.body) {
            (Form::Spans, Body::ForwardMarch) => include_str!("../wgsl/scan_forward_spans.wgsl"),
            (Form::Spans, Body::BackwardMarch) => include_str!("../wgsl/scan_backward_spans.wgsl"),
            (Form::Turned, _) => include_str!("../wgsl/scan_backward_turned.wgsl"),
            (_, body) => body.text(),
        }
    }
}

/// The whole module.
pub(crate) fn source(key: &PipelineKey) -> String {
    let (k, lane, (columns, rows)) = (&key.key, key.form.lane(), key.workgroup());
    let (v, u) = if lane == 2 { ("vec2<f32>", "vec2<u32>") } else { ("f32", "u32") };
    let mut out = format!(
        "const WORKGROUP: u32 = {}u;\nconst COLUMNS: u32 = {columns}u;\nconst ROWS: u32 = {rows}u;\nconst TABLE: u32 = {TABLE}u;\nconst CHUNK: u32 = {}u;\n\
         const SPAN: u32 = {SPAN}u;\n\
         const LANE: u32 = {lane}u;\nconst PAUSED: bool = {};\n\
         const FUSED: bool = {};\nconst EXACT_INPUT: bool = {};\nconst EXACT_OUTPUT: bool = {};\n\
         const SAVE_CHUNKS: bool = {};\nconst SAVE_H: bool = {};\nalias V = {v};\nalias U = {u};\n",
        columns * rows,
        k.chunk,
        k.paused,
        key.fused,
        !k.slots.has(Slot::B) || k.dtype.size() == 2,
        !k.slots.has(Slot::C) || (k.dtype.size() == 2 && k.out_dtype.size() == 2),
        k.save == Save::Chunks,
        k.save == Save::H,
    );
    out.push_str(match key.form {
        Form::Joined | Form::Neighbours => include_str!("../wgsl/neighbours.wgsl"),
        Form::Spans | Form::Turned => include_str!("../wgsl/spans.wgsl"),
        Form::Scalar | Form::Pairs | Form::Halves => include_str!("../wgsl/alone.wgsl"),
    });
    out.push_str(include_str!("../wgsl/common.wgsl"));
    out.push_str(include_str!("../wgsl/fold.wgsl"));
    let holds = |dtype| k.slots.iter().any(|slot| k.dtype_of(slot) == dtype);
    if holds(DType::Bf16) {
        out.push_str(include_str!("../wgsl/bf16.wgsl"));
    }
    if holds(DType::F16) {
        out.push_str(if key.packs { "const PACKS: bool = true;\n" } else { "const PACKS: bool = false;\n" });
        out.push_str(include_str!("../wgsl/f16.wgsl"));
    }
    out.push_str(if k.packed {
        include_str!("../wgsl/items_packed.wgsl")
    } else {
        include_str!("../wgsl/items_batch.wgsl")
    });
    for slot in Slot::ALL {
        accessors::write(&mut out, key, slot);
    }
    if matches!(k.body, Body::BackwardMarch | Body::BackwardReduce | Body::BackwardApply) {
        out.push_str(include_str!("../wgsl/scan_backward_chunk.wgsl"));
    }
    unroll(&mut out, key.text(), k.chunk);
    out
}

/// Repeats the lines between `//@each` (or `//@each_back`, from the last) and `//@end`, with `$` replaced by the step, and
/// those after `//@pairs` (or `//@pairs_back`) by the pair of steps, after `//@quarters` by four of them. Unrolled here
/// because naga bounds loops and indexed arrays with code that keeps drivers from unrolling them.
fn unroll(out: &mut String, text: &str, count: u32) {
    // How often a block stands, whether from the last, and its lines.
    let mut block: Option<(u32, bool, String)> = None;
    for line in text.lines() {
        match (line.trim(), &mut block) {
            ("//@each", _) => block = Some((count, false, String::new())),
            ("//@each_back", _) => block = Some((count, true, String::new())),
            ("//@quarters", _) => block = Some((count / 4, false, String::new())),
            ("//@pairs", _) => block = Some((count / 2, false, String::new())),
            ("//@pairs_back", _) => block = Some((count / 2, true, String::new())),
            ("//@end", _) => {
                let (times, back, body) = block.take().unwrap_or_default();
                for step in 0..times {
                    let step = if back { times - 1 - step } else { step };
                    out.push_str(&body.replace('$', &step.to_string()));
                }
            }
            (_, Some((_, _, body))) => {
                body.push_str(line);
                body.push('\n');
            }
            (_, None) => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
}
