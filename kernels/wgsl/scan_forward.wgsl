// h[t] = a[t]·h[t-1] + b[t]·x[t], y[t] = c[t]·h[t], in time order of the sequence.
//
// Time is cut into groups of p.group steps and groups into chunks of CHUNK steps. The carry out of a group is
// P·carry + S (P the product of its gates, S its scan from 0; fold.wgsl), whichever way it is computed: `march` owns a
// lane from the first step to the last and keeps S and P beside h; `reduce` leaves S and P of every group, scan_carry
// folds them in order, `apply` replays every group from its exact entry. Same expressions in the same order, so the
// same bits.
//
// A chunk is loaded whole before its first step, which keeps 4·CHUNK loads in flight an invocation; memory bounds the
// kernel. Traffic: march and apply read x, a, b, c once and write y once; reduce reads x, a, b once more.
// Storage bindings: at most 7 (x, a, b, c, y, saved, and state or agg).

fn replay(it: Item, d: u32, begin: u32, end: u32, entry: Run) -> Run {
    var r = entry;
    var t = begin;
    while (t < end) {
        let i = it.base + t * p.step + d;
        if (SAVE_CHUNKS && t % CHUNK == 0u) {
            store_saved(it.saved + t / CHUNK * p.saved_pitch + d, r.h);
        }
        if (t % CHUNK == 0u && end - t >= CHUNK) {
            //@each
            let x$ = fetch_x(i + $u * p.step);
            let a$ = fetch_a(i + $u * p.step);
            let b$ = fetch_b(i + $u * p.step);
            let c$ = fetch_c(i + $u * p.step);
            //@end
            var seen = 0u;
            //@each
            seen |= x_bits(x$) | a_bits(a$) | b_bits(b$) | c_bits(c$);
            //@end
            r.h = after(r.h, seen);
            //@each
            r = advance(r, a_of(a$), b_of(b$), x_of(x$));
            let y$ = pack_y(c_of(c$) * r.h);
            if (SAVE_H) {
                store_saved(i + $u * p.step, r.h);
            }
            //@end
            seen = 0u;
            //@each
            seen |= y_bits(y$);
            //@end
            //@each
            put_y(i + $u * p.step, y$, seen);
            //@end
            t += CHUNK;
        } else {
            r = advance(r, a_of(fetch_a(i)), b_of(fetch_b(i)), x_of(fetch_x(i)));
            store_y(i, c_of(fetch_c(i)) * r.h);
            if (SAVE_H) {
                store_saved(i, r.h);
            }
            t += 1u;
        }
        if (folds() && (t % SPAN == 0u || t == it.len)) {
            r = end_span(r);
        }
    }
    return r;
}

// One invocation a lane of a sequence. A march too long for one dispatch pauses between chunks.
@compute @workgroup_size(WORKGROUP)
fn march(here: Here) {
    let at = place(here);
    if (at.item >= p.items) {
        return;
    }
    let it = item(at.item);
    let state = at.item * p.state_pitch + at.d;
    var r = begin_march(state);
    let last = min(it.len, p.to_step);
    var t = p.from_step;
    while (t < last) {
        let boundary = (t / p.group + 1u) * p.group;
        let end = min(boundary, last);
        r = replay(it, at.d, t, end, r);
        t = end;
        if (folds() && (end == boundary || end == it.len)) {
            r = end_group(r);
        }
    }
    end_march(state, r);
}

// S and P of one group.
@compute @workgroup_size(WORKGROUP)
fn reduce(here: Here) {
    let at = place(here);
    if (at.item >= p.items) {
        return;
    }
    let it = item(at.item);
    var r = begin_group(ZERO);
    var t = it.group * p.group;
    let end = min(it.len, t + p.group);
    while (t < end) {
        let i = it.base + t * p.step + at.d;
        if (end - t >= CHUNK) {
            //@each
            let x$ = fetch_x(i + $u * p.step);
            let a$ = fetch_a(i + $u * p.step);
            let b$ = fetch_b(i + $u * p.step);
            //@end
            var seen = 0u;
            //@each
            seen |= x_bits(x$) | a_bits(a$) | b_bits(b$);
            //@end
            r.s.high = after(r.s.high, seen);
            //@each
            r = advance(r, a_of(a$), b_of(b$), x_of(x$));
            //@end
            t += CHUNK;
        } else {
            r = advance(r, a_of(fetch_a(i)), b_of(fetch_b(i)), x_of(fetch_x(i)));
            t += 1u;
        }
        if (t % SPAN == 0u || t == it.len) {
            r = end_span(r);
        }
    }
    store_group(4u * at.item * p.width + at.d, r);
}

// One group, replayed from the entry that scan_carry left.
@compute @workgroup_size(WORKGROUP)
fn apply(here: Here) {
    let at = place(here);
    if (at.item >= p.items) {
        return;
    }
    let it = item(at.item);
    let begin = it.group * p.group;
    let entry = load_group(4u * at.item * p.width + at.d);
    replay(it, at.d, begin, min(it.len, begin + p.group), entry);
}
