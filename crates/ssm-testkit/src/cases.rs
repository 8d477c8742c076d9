//! The named cases, each with the reason it is there.

use ssm_core::{Algorithm, Checkpoint, DType, GatedScan, Grads, MemoryTile};

use crate::Values;

/// One shape with its options and values; the type and the algorithm come from the trial.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each field is the problem's option of that name")]
pub struct Case {
    pub name: String,
    /// Why it is there.
    pub why: &'static str,
    /// (B, L, D).
    pub shape: [usize; 3],
    pub b: bool,
    pub c: bool,
    pub h0: bool,
    pub final_state: bool,
    pub d_final_state: bool,
    pub reverse: bool,
    pub cu_seqlens: Option<Vec<usize>>,
    /// The type of y; the inputs' own when `None`.
    pub out: Option<DType>,
    pub checkpoint: Checkpoint,
    pub tile: MemoryTile,
    pub values: Values,
    /// Which gradients, of those that the problem has, in the order x, a, b, c, h0. None of them: forward only.
    pub grads: [bool; 5],
    /// The only algorithm that is promised to hold here; every one when `None`.
    pub only: Option<Algorithm>,
    /// Held only by algorithms that fold chunks: the plain loop's error grows with the memory of the gates.
    pub folded: bool,
}

impl Case {
    /// With b, c and no other option, every gradient.
    pub fn new(name: impl Into<String>, shape: [usize; 3], why: &'static str) -> Self {
        Self {
            name: name.into(),
            why,
            shape,
            b: true,
            c: true,
            h0: false,
            final_state: false,
            d_final_state: false,
            reverse: false,
            cu_seqlens: None,
            out: None,
            checkpoint: Checkpoint::default(),
            tile: MemoryTile::default(),
            values: Values::Usual,
            grads: [true; 5],
            only: None,
            folded: false,
        }
    }

    /// With states going in and out, and their gradients.
    #[must_use]
    pub fn states(mut self) -> Self {
        (self.h0, self.final_state, self.d_final_state) = (true, true, true);
        self
    }

    /// With packed sequences.
    #[must_use]
    pub fn packed(mut self, cu: &[usize]) -> Self {
        self.cu_seqlens = Some(cu.to_vec());
        self
    }

    /// With these values.
    #[must_use]
    pub fn values(mut self, values: Values) -> Self {
        self.values = values;
        self
    }

    /// The problem over one storage type; `None` where the case does not go with it.
    pub fn problem(&self, dtype: DType) -> Option<GatedScan> {
        let [batch, len, channels] = self.shape;
        let mut builder = GatedScan::builder(batch, len, channels)
            .dtype(dtype)
            .b(self.b)
            .c(self.c)
            .initial_state(self.h0)
            .final_state(self.final_state)
            .reverse(self.reverse)
            .checkpoint(self.checkpoint)
            .tile(self.tile);
        if let Some(cu) = &self.cu_seqlens {
            builder = builder.cu_seqlens(cu);
        }
        if let Some(out) = self.out {
            builder = builder.out_dtype(out);
        }
        builder.build().ok()
    }

    /// The gradients asked for, of those that the problem has.
    pub fn asked(&self, problem: &GatedScan) -> Grads {
        let (all, [x, a, b, c, h0]) = (Grads::all(problem), self.grads);
        Grads { x: all.x && x, a: all.a && a, b: all.b && b, c: all.c && c, h0: all.h0 && h0 }
    }
}

/// Every case.
pub fn cases() -> Vec<Case> {
    let mut all = sizes();
    all.extend(options());
    all.extend(packed());
    all.extend(special_values());
    all.extend(requests());
    all
}

fn sizes() -> Vec<Case> {
    let empty = [("no_rows", [0, 5, 3]), ("no_channels", [2, 5, 0])];
    let mut all: Vec<Case> = empty
        .into_iter()
        .map(|(name, shape)| Case::new(name, shape, "nothing to do succeeds").states())
        .collect();
    all.push(Case::new("no_steps", [2, 0, 5], "no time: hT = h0 and dh0 = dhT").states());
    for len in [1, 2, 3] {
        all.push(Case::new(format!("len_{len}"), [2, len, 5], "shorter than anything").states());
    }
    for len in [15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 509, 1000] {
        all.push(
            Case::new(format!("len_{len}"), [2, len, 3], "around tiles and chunks, and primes").states(),
        );
    }
    for channels in [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 127, 255, 256, 257, 1000] {
        let why = "around vectors and channel tiles, and primes";
        all.push(Case::new(format!("channels_{channels}"), [2, 67, channels], why).states());
    }
    all.push(Case::new("channels_4095", [1, 5, 4095], "many channels, none of them a whole tile").states());
    all.push(Case::new("channels_8192", [1, 3, 8192], "more channels than any one tile").states());
    all.push(
        Case::new("rows_70000", [70_000, 2, 1], "more rows than a 16-bit grid dimension holds").states(),
    );
    all.push(Case::new("rows_251", [251, 9, 3], "a prime number of short rows").states());
    all.push(Case::new(
        "long_thin",
        [1, 65_537, 2],
        "long, one more than a power of two, nothing to fill rows",
    ));
    all.push(Case::new("long_thin_reverse", [1, 20_011, 3], "the same backwards, a prime"));
    if let Some(last) = all.last_mut() {
        last.reverse = true;
    }
    let memories = [
        ("long_memory", Values::LongMemory, 20_011, false),
        ("longest_memory", Values::LongestMemory, 20_011, true),
        ("million_steps", Values::LongestMemory, 1 << 20, true),
    ];
    for (name, values, len, folded) in memories {
        let why = "a state that lives for thousands of chunks: a carry or a product of gates that is rounded to \
                   float32 at each of them adds up past the contract";
        all.push(Case { folded, ..Case::new(name, [1, len, 3], why).states().values(values) });
    }
    all
}

fn options() -> Vec<Case> {
    let mut all = Vec::new();
    for bits in 0..64usize {
        let has = |bit: usize| bits >> bit & 1 == 1;
        let flag = |bit: usize, name: &'static str| if has(bit) { name } else { "" };
        let name =
            ["options", flag(0, "_b"), flag(1, "_c"), flag(2, "_h0"), flag(3, "_hT"), flag(4, "_reverse")]
                .concat()
                + flag(5, "_packed");
        let mut case = Case::new(name, [if has(5) { 1 } else { 2 }, 130, 6], "every combination of options");
        (case.b, case.c, case.h0, case.final_state, case.reverse) = (has(0), has(1), has(2), has(3), has(4));
        // dhT goes with hT or without it, and each policy meets every option.
        case.d_final_state = has(3) != (bits % 5 == 0);
        case.checkpoint = Checkpoint::ALL[bits % 3];
        if has(5) {
            case = case.packed(&[0, 1, 1, 66, 127]);
        }
        all.push(case);
    }
    all
}

fn packed() -> Vec<Case> {
    let layouts: [(&str, usize, &[usize], &'static str); 6] = [
        ("one", 100, &[0, 100], "one sequence is the plain scan"),
        ("none", 10, &[0], "no sequence at all: every row is slack"),
        ("empties", 70, &[0, 0, 0, 35, 35, 70, 70, 70], "empty sequences first, between and last"),
        ("singles", 9, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], "every step a sequence"),
        ("slack", 300, &[0, 64, 128, 193], "boundaries on the chunk grid, a third of the rows slack"),
        ("off_grid", 400, &[0, 63, 128, 199, 328, 400], "boundaries just off the chunk grid"),
    ];
    let mut all = Vec::new();
    for (name, len, cu, why) in layouts {
        for reverse in [false, true] {
            let suffix = if reverse { "_reverse" } else { "" };
            let mut case = Case::new(format!("packed_{name}{suffix}"), [1, len, 13], why).packed(cu).states();
            case.reverse = reverse;
            all.push(case);
        }
    }
    let cu: Vec<usize> = (0..=3000).map(|i| i * 7 / 3).collect();
    all.push(Case::new("packed_many", [1, 7000, 2], "thousands of sequences of 2 or 3").packed(&cu).states());
    all
}

fn special_values() -> Vec<Case> {
    let table = [
        ("zero_gates", Values::ZeroGates, "a gate of 0 forgets everything"),
        ("all_zero_gates", Values::AllZeroGates, "no memory at all"),
        ("one_gates", Values::OneGates, "a running sum"),
        ("negative_gates", Values::NegativeGates, "signs alternate"),
        ("growing_gates", Values::GrowingGates, "gates above 1 inside a chunk"),
        ("denormal_gates", Values::DenormalGates, "gates that a device may flush to 0"),
        ("underflow", Values::Underflow, "the product over a chunk underflows"),
        (
            "overflow_at_rest",
            Values::OverflowAtRest,
            "the product over a chunk overflows, a zero carry stays zero",
        ),
        ("contaminated", Values::Contaminated, "NaN and Inf reach what the plain loop carries them to"),
    ];
    let mut all = Vec::new();
    for (name, values, why) in table {
        for reverse in [false, true] {
            let suffix = if reverse { "_reverse" } else { "" };
            let mut case = Case::new(format!("{name}{suffix}"), [2, 330, 19], why).values(values);
            case.reverse = reverse;
            if values != Values::OverflowAtRest {
                case = case.states();
            }
            all.push(case);
        }
    }
    let cu = [0, 40, 40, 200, 330];
    all.push(
        Case::new("contaminated_packed", [1, 340, 19], "packed boundaries cut NaN and Inf")
            .packed(&cu)
            .states()
            .values(Values::Contaminated),
    );
    let mut motion =
        Case::new("overflow_in_motion", [2, 200, 7], "beyond the chunk's range: the sequential loop");
    (motion.h0, motion.final_state, motion.grads) = (true, true, [false; 5]);
    (motion.values, motion.only) = (Values::OverflowInMotion, Some(Algorithm::Sequential));
    all.push(motion);
    all
}

/// What is asked for: types, policies, gradients, tiles.
fn requests() -> Vec<Case> {
    let shape = [2, 150, 11];
    let mut all = Vec::new();
    for out in DType::ALL {
        let mut case = Case::new(format!("out_{out}"), shape, "y in another type than x").states();
        case.out = Some(out);
        all.push(case);
    }
    for policy in Checkpoint::ALL {
        let mut case =
            Case::new(format!("policy_{policy}"), [2, 517, 11], "what forward leaves behind").states();
        case.checkpoint = policy;
        all.push(case);
    }
    let sets: [(&str, [bool; 5]); 8] = [
        ("x", [true, false, false, false, false]),
        ("a", [false, true, false, false, false]),
        ("b", [false, false, true, false, false]),
        ("c", [false, false, false, true, false]),
        ("h0", [false, false, false, false, true]),
        ("x_b", [true, false, true, false, false]),
        ("a_c", [false, true, false, true, false]),
        ("none", [false; 5]),
    ];
    for (name, grads) in sets {
        for (policy, suffix) in [(Checkpoint::ChunkStates, ""), (Checkpoint::Nothing, "_nothing")] {
            let why = "each gradient is asked for on its own";
            let mut case = Case::new(format!("grads_{name}{suffix}"), shape, why).states();
            (case.grads, case.checkpoint) = (grads, policy);
            all.push(case);
        }
    }
    let tiles = [(Some(1), None), (None, Some(4)), (Some(2), Some(3)), (Some(1000), Some(1000))];
    for (batch, channels) in tiles {
        let text = |n: Option<usize>| n.map_or("all".to_owned(), |n| n.to_string());
        let name = format!("tile_{}_by_{}", text(batch), text(channels));
        let mut case = Case::new(name, [5, 150, 11], "worked on a part at a time").states();
        case.tile = MemoryTile { batch, channels };
        all.push(case);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_problems_build() {
        let all = cases();
        let names: std::collections::HashSet<&str> = all.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        for case in &all {
            assert!(DType::ALL.iter().any(|dtype| case.problem(*dtype).is_some()), "{}", case.name);
        }
    }
}
