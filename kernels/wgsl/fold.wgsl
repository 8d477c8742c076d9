// How a carry passes a group of steps: P·carry + S, with P the product of the group's gates and S its scan from 0.
//
// Where gates are near 1, or the same for long, roundings add up: of the state, once a step, and of the product of
// gates. A last state that terms of both signs leave small shows those of the steps just before. So a carry, S and P are
// pairs, a value and what its roundings took, and only within a span of SPAN steps is h the plain loop's, in f32: it
// enters each span as the rounded carry.
//
// Spans are folded twice: into the carry that the next span enters with, and into S and P of the group. Only the latter
// goes past the group's end, whichever way the groups are folded, so that every way gives the same bits.

// A value, and what its roundings took.
struct Pair {
    high: V,
    low: V,
}

const ZERO: Pair = Pair(V(0.0), V(0.0));
const ONE: Pair = Pair(V(1.0), V(0.0));
const GREATEST: f32 = 0x1.fffffep+127f;

// Where a walk is. Forward h is the state, backward it is q.
struct Run {
    h: V,
    // Since the span began: the scan from 0, and the product of the gates.
    s: Pair,
    p: Pair,
    // The same of the spans before it in the group.
    sum: Pair,
    product: Pair,
    // The carry into the span, and into the group.
    inner: Pair,
    carry: Pair,
}

// Without it h is the plain loop's throughout: the sequential algorithm.
fn folds() -> bool {
    return (p.flags & FOLD) != 0u;
}

fn begin_group(carry: Pair) -> Run {
    return Run(carry.high, ZERO, ONE, ZERO, ONE, carry, carry);
}

// The upper 12 bits of each significand: products of these, and of what they leave, are exact.
fn upper(v: V) -> V {
    return bitcast<V>(bitcast<U>(v) & U(0xfffff000u));
}

// Products and sums that round here and now: a compiler that treats them as if they were exact must not, nor may it
// choose which of two products it fuses with their sum, one way in one kernel and the other in the next. Where fma
// rounds once it is told so by an fma with a -0 or a 1 that only the host knows, one operation for one; elsewhere by way
// of a zero of the host's.
fn opaque(v: V) -> V {
    return bitcast<V>(bitcast<U>(v) ^ U(p.zero));
}

fn mul(a: V, b: V) -> V {
    if (FUSED) {
        return fma(a, b, V(bitcast<f32>(p.zero | 0x80000000u)));
    }
    return opaque(a * b);
}

fn add(a: V, b: V) -> V {
    if (FUSED) {
        return fma(a, V(bitcast<f32>(p.zero | 0x3f800000u)), b);
    }
    return opaque(a + b);
}

fn sub(a: V, b: V) -> V {
    if (FUSED) {
        return fma(-b, V(bitcast<f32>(p.zero | 0x3f800000u)), a);
    }
    return opaque(a - b);
}

// Where fma is known to round once it says what rounding took from a product. Elsewhere the product is put together from
// exact pieces.
fn product_of(a: V, b: V) -> Pair {
    let high = mul(a, b);
    if (FUSED) {
        return Pair(high, fma(a, b, -high));
    }
    let a1 = upper(a);
    let a2 = a - a1;
    let b1 = upper(b);
    let b2 = b - b1;
    return Pair(high, mul(a1, b1) - high + mul(a1, b2) + mul(a2, b1) + mul(a2, b2));
}

// The same of two elements: nothing is lost of a product of 16-bit ones, nor of one with the 1 that is not there. Past
// f32's range there is no pair to keep either.
fn product_of_elements(a: V, b: V, exact: bool) -> Pair {
    if (exact) {
        return Pair(mul(a, b), V(0.0));
    }
    return product_of(a, b);
}

fn sum_of(a: V, b: V) -> Pair {
    let high = add(a, b);
    let b1 = sub(high, a);
    return Pair(high, sub(a, sub(high, b1)) + sub(b, b1));
}

fn times(product: Pair, a: V) -> Pair {
    let next = product_of(a, product.high);
    return Pair(next.high, fma(a, product.low, next.low));
}

// a·s + u of pairs.
fn scanned(s: Pair, a: V, u: Pair) -> Pair {
    let product = product_of(a, s.high);
    let next = added(product.high, u, EXACT_INPUT);
    return Pair(next.high, fma(a, s.low, product.low) + next.low);
}

// a·(s + c·dy) of pairs.
fn walked(s: Pair, a: V, c: V, dy: V) -> Pair {
    let g = added(s.high, product_of_elements(c, dy, EXACT_OUTPUT), EXACT_OUTPUT);
    let next = product_of(a, g.high);
    return Pair(next.high, fma(a, s.low + g.low, next.low));
}

// a + u, where u is a value or a pair.
fn added(a: V, u: Pair, exact: bool) -> Pair {
    let sum = sum_of(a, u.high);
    if (exact) {
        return sum;
    }
    return Pair(sum.high, sum.low + u.low);
}

// product·carry + sum. A carry of exactly 0 stays out of the product, which may have overflowed. What was lost of a
// value that left the range is no number: such a result keeps to the rounded product, whose sign it takes.
fn fold(product: Pair, carry: Pair, sum: Pair) -> Pair {
    let whole = product_of(product.high, carry.high);
    let near = sum_of(whole.high, sum.high);
    let lost = fma(product.high, carry.low, fma(product.low, carry.high, whole.low)) + (near.low + sum.low);
    let high = add(near.high, lost);
    let low = lost - sub(high, near.high);
    let finite = abs(high) <= V(GREATEST);
    let rest = carry.high == V(0.0);
    let rounded = select(fma(product.high, carry.high, sum.high), high, finite);
    return Pair(select(rounded, sum.high, rest), select(select(V(0.0), low, finite), sum.low, rest));
}

// A step forward.
fn advance(r: Run, a: V, b: V, x: V) -> Run {
    let u = product_of_elements(b, x, EXACT_INPUT);
    return Run(fma(a, r.h, u.high), scanned(r.s, a, u), times(r.p, a), r.sum, r.product, r.inner, r.carry);
}

// A step backward, whose h is q and whose s is the walk back from 0.
fn retreat(r: Run, a: V, g: V, c: V, dy: V) -> Run {
    return Run(mul(a, g), walked(r.s, a, c, dy), times(r.p, a), r.sum, r.product, r.inner, r.carry);
}

// The span joins those before it in the group.
fn gather(r: Run) -> Run {
    let product = product_of(r.p.high, r.product.high);
    let low = fma(r.p.high, r.product.low, fma(r.p.low, r.product.high, product.low));
    return Run(r.h, r.s, r.p, fold(r.p, r.sum, r.s), Pair(product.high, low), r.inner, r.carry);
}

fn end_span(r: Run) -> Run {
    let group = gather(r);
    let inner = fold(r.p, r.inner, r.s);
    return Run(inner.high, ZERO, ONE, group.sum, group.product, inner, r.carry);
}

fn end_group(r: Run) -> Run {
    return begin_group(fold(r.product, r.carry, r.sum));
}

// A walk too long for one dispatch waits in thirteen planes of the state, h in the first.
fn resume_run(at: u32) -> Run {
    return Run(
        plane(at, 0u),
        Pair(plane(at, 1u), plane(at, 2u)),
        Pair(plane(at, 3u), plane(at, 4u)),
        Pair(plane(at, 5u), plane(at, 6u)),
        Pair(plane(at, 7u), plane(at, 8u)),
        Pair(plane(at, 9u), plane(at, 10u)),
        Pair(plane(at, 11u), plane(at, 12u)),
    );
}

fn plane(at: u32, i: u32) -> V {
    return state_of(fetch_state(at + i * p.state_plane));
}

fn pause_run(at: u32, r: Run) {
    store_pair(at, 1u, r.s);
    store_pair(at, 3u, r.p);
    store_pair(at, 5u, r.sum);
    store_pair(at, 7u, r.product);
    store_pair(at, 9u, r.inner);
    store_pair(at, 11u, r.carry);
}

fn store_pair(at: u32, i: u32, v: Pair) {
    store_plane(at, i, v.high);
    store_plane(at, i + 1u, v.low);
}

fn store_plane(at: u32, i: u32, v: V) {
    store_state(at + i * p.state_plane, v);
}

// Where a march starts in this dispatch.
fn begin_march(at: u32) -> Run {
    if (PAUSED && (p.flags & RESUME) != 0u) {
        return resume_run(at);
    }
    if ((p.flags & READ_STATE) != 0u) {
        return begin_group(Pair(state_of(fetch_state(at)), V(0.0)));
    }
    return begin_group(ZERO);
}

fn end_march(at: u32, r: Run) {
    if ((p.flags & WRITE_STATE) != 0u) {
        store_state(at, r.h);
    }
    if (PAUSED) {
        pause_run(at, r);
    }
}

// A group's aggregate, S and P in four rows. scan_carry puts the carry into the group in the place of S.
fn store_group(i: u32, r: Run) {
    store_agg(i, r.sum.high);
    store_agg(i + p.width, r.sum.low);
    store_agg(i + 2u * p.width, r.product.high);
    store_agg(i + 3u * p.width, r.product.low);
}

fn load_group(i: u32) -> Run {
    return begin_group(Pair(agg_of(fetch_agg(i)), agg_of(fetch_agg(i + p.width))));
}
