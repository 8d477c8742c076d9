// What every kernel shares: the parameters of a dispatch, and which item and channels an invocation works on.
//
// V is what one invocation holds of a tensor's row: one channel, or the two that share a word. Its accessors are
// generated for each kernel: fetch_x reads what is stored, x_of turns it into V, store_y rounds once and writes. For an
// operand that is not bound, fetch gives the neutral value and store does nothing. All indices are in elements and wrap
// around 2^32 on purpose: a reversed sequence walks with a stride of minus D.

struct Params {
    // Where each operand's window begins in its binding, by slot.
    offsets: array<vec4<u32>, 4>,
    // Sequences, or groups of sequences, in this dispatch; lanes of V a row; workgroups in a row of the grid.
    items: u32,
    lanes: u32,
    grid: u32,
    flags: u32,
    // The element of step 0 of the first sequence; from a step to the next; from a sequence to the next; steps.
    base: u32,
    step: u32,
    row: u32,
    len: u32,
    // Groups a sequence has in this dispatch; the first of them; steps a group.
    groups: u32,
    first: u32,
    group: u32,
    // Rows of the carry's state: from one to the next, and from one plane of a paused march to the next.
    state_pitch: u32,
    state_plane: u32,
    // The steps that this dispatch walks.
    from_step: u32,
    to_step: u32,
    // Saved states: the first, from a sequence to the next, from a chunk to the next.
    saved: u32,
    saved_row: u32,
    saved_pitch: u32,
    // Channels of a row of aggregates.
    width: u32,
    // 0, which no compiler knows.
    zero: u32,
}

const GREATEST: f32 = 0x1.fffffep+127f;
const READ_STATE: u32 = 1u;
const WRITE_STATE: u32 = 2u;
const BACKWARD: u32 = 4u;

@group(0) @binding(0) var<uniform> p: Params;

struct Item {
    base: u32,
    len: u32,
    saved: u32,
    group: u32,
}

struct Place {
    // The item, and the first channel of the lane.
    item: u32,
    d: u32,
}

fn place(workgroup: vec3<u32>, local: u32) -> Place {
    let id = (workgroup.y * p.grid + workgroup.x) * WORKGROUP + local;
    let item = id / p.lanes;
    return Place(item, (id - item * p.lanes) * LANE);
}

// A value, and what its roundings took.
struct Pair {
    high: V,
    low: V,
}

const ZERO: Pair = Pair(V(0.0), V(0.0));
const ONE: Pair = Pair(V(1.0), V(0.0));

// The upper 12 bits of each significand: products of these, and of what they leave, are exact.
fn upper(v: V) -> V {
    return bitcast<V>(bitcast<U>(v) & U(0xfffff000u));
}

// Its argument, by way of a zero that only the host knows: a compiler that factors sums of products must not here.
fn opaque(v: V) -> V {
    return bitcast<V>(bitcast<U>(v) ^ U(p.zero));
}

// Where fma rounds once it says what rounding took from a product. Software adapters round twice: there the product is
// put together from exact pieces.
fn product_of(a: V, b: V) -> Pair {
    let high = a * b;
    if (FUSED) {
        return Pair(high, fma(a, b, -high));
    }
    let a1 = upper(a);
    let a2 = a - a1;
    let b1 = upper(b);
    let b2 = b - b1;
    return Pair(high, opaque(a1 * b1) - high + opaque(a1 * b2) + opaque(a2 * b1) + opaque(a2 * b2));
}

fn sum_of(a: V, b: V) -> Pair {
    let high = opaque(a + b);
    let b1 = opaque(high - a);
    return Pair(high, opaque(a - opaque(high - b1)) + opaque(b - b1));
}

// The product of a group's gates keeps what it loses: with gates near 1 it rounds once a step, and a long memory adds
// these up.
fn times(product: Pair, a: V) -> Pair {
    let next = product_of(a, product.high);
    return Pair(next.high, fma(a, product.low, next.low));
}

// The scan from 0, a·S + u. One fused rounding a step is little beside h; two are not.
fn scanned(sum: Pair, a: V, u: V) -> Pair {
    if (FUSED) {
        return Pair(fma(a, sum.high, u), V(0.0));
    }
    let product = product_of(a, sum.high);
    let next = sum_of(product.high, u);
    return Pair(next.high, fma(a, sum.low, product.low + next.low));
}

// The walk back from 0, a·(Q + c·dy).
fn walked(sum: Pair, a: V, c: V, dy: V) -> Pair {
    if (FUSED) {
        return Pair(a * fma(c, dy, sum.high), V(0.0));
    }
    let local = sum_of(sum.high, c * dy);
    let next = product_of(a, local.high);
    return Pair(next.high, fma(a, sum.low + local.low, next.low));
}

// A pair rounded. What was lost of a value that left the range is no number.
fn rounded(v: Pair) -> V {
    return v.high + select(V(0.0), v.low, abs(v.high) <= V(GREATEST));
}

// The carry out of a group. A carry of exactly 0 stays out of the product, which may have overflowed; an infinite one
// keeps to the rounded product, whose sign it takes.
fn fold(product: Pair, carry: V, sum: V) -> V {
    let finite = (abs(product.high) <= V(GREATEST)) & (abs(carry) <= V(GREATEST));
    let low = select(V(0.0), product.low, finite);
    return select(fma(product.high, carry, fma(low, carry, sum)), sum, carry == V(0.0));
}
