// g[t] = c[t]·dy[t] + q[t+1], q[t] = a[t]·g[t], from the last step to the first; dx = b·g, db = x·g, dc = dy·h,
// da = h[t-1]·g, and dh0 is the last q.
//
// The mirror of scan_forward: the carry out of a group is P·q + Q (P the product of its gates, Q its walk from 0), with
// `march`, `reduce` and `apply` as there. h is rebuilt a chunk at a time from the state that forward saved at the
// chunk's entry, in registers; with SAVE_H it is read instead.
//
// An operand that no requested gradient needs is not bound, and its loads fold away. Traffic with every gradient in one
// pass: x, a, b, c, dy read once, four gradients written once; reduce reads a, c, dy once more. Where the adapter binds
// fewer buffers than a pass needs (12 for all), the plan splits the gradients over passes.

// Steps end - 1 down to begin, both within one group; begin lies on a chunk.
fn unwind(it: Item, d: u32, begin: u32, end: u32, entry: Run) -> Run {
    var r = entry;
    var t = end;
    while (t > begin) {
        let first = (t - 1u) / CHUNK * CHUNK;
        let i = it.base + first * p.step + d;
        let before = chunk_entry(it, d, first);
        if (t - first == CHUNK) {
            //@each
            let x$ = fetch_x(i + $u * p.step);
            let a$ = fetch_a(i + $u * p.step);
            let b$ = fetch_b(i + $u * p.step);
            let c$ = fetch_c(i + $u * p.step);
            let dy$ = fetch_dy(i + $u * p.step);
            //@end
            var seen = 0u;
            //@each
            seen |= x_bits(x$) | a_bits(a$) | b_bits(b$) | c_bits(c$) | dy_bits(dy$);
            //@end
            r.h = after(r.h, seen);
            var h = after(before, seen);
            //@each
            let prev$ = h;
            h = state_after(i + $u * p.step, h, a_of(a$), b_of(b$), x_of(x$));
            let h$ = h;
            //@end
            //@each_back
            let g$ = fma(c_of(c$), dy_of(dy$), r.h);
            store_gradients(i + $u * p.step, b_of(b$) * g$, x_of(x$) * g$, dy_of(dy$) * h$, prev$ * g$);
            r = retreat(r, a_of(a$), g$, c_of(c$), dy_of(dy$));
            //@end
        } else {
            r = unwind_steps(i, t - first, before, r);
        }
        t = first;
        if (folds() && t % SPAN == 0u) {
            r = end_span(r);
        }
    }
    return r;
}

@compute @workgroup_size(WORKGROUP)
fn march(here: Here) {
    let at = place(here);
    if (at.item >= p.items) {
        return;
    }
    let it = item(at.item);
    let state = at.item * p.state_pitch + at.d;
    var r = begin_march(state);
    var t = min(it.len, p.to_step);
    while (t > p.from_step) {
        let boundary = (t - 1u) / p.group * p.group;
        let begin = max(boundary, p.from_step);
        r = unwind(it, at.d, begin, t, r);
        t = begin;
        if (folds() && begin == boundary) {
            r = end_group(r);
        }
    }
    end_march(state, r);
}

// Q and P of one group.
@compute @workgroup_size(WORKGROUP)
fn reduce(here: Here) {
    let at = place(here);
    if (at.item >= p.items) {
        return;
    }
    let it = item(at.item);
    var r = begin_group(ZERO);
    let begin = it.group * p.group;
    var t = min(it.len, begin + p.group);
    while (t > begin) {
        let first = (t - 1u) / CHUNK * CHUNK;
        if (t - first == CHUNK) {
            let i = it.base + first * p.step + at.d;
            //@each_back
            let a$ = fetch_a(i + $u * p.step);
            let c$ = fetch_c(i + $u * p.step);
            let dy$ = fetch_dy(i + $u * p.step);
            //@end
            var seen = 0u;
            //@each
            seen |= a_bits(a$) | c_bits(c$) | dy_bits(dy$);
            //@end
            r.s.high = after(r.s.high, seen);
            //@each_back
            r = retreat(r, a_of(a$), V(0.0), c_of(c$), dy_of(dy$));
            //@end
            t = first;
        } else {
            t -= 1u;
            let i = it.base + t * p.step + at.d;
            r = retreat(r, a_of(fetch_a(i)), V(0.0), c_of(fetch_c(i)), dy_of(fetch_dy(i)));
        }
        if (t % SPAN == 0u) {
            r = end_span(r);
        }
    }
    store_group(4u * at.item * p.width + at.d, r);
}

@compute @workgroup_size(WORKGROUP)
fn apply(here: Here) {
    let at = place(here);
    if (at.item >= p.items) {
        return;
    }
    let it = item(at.item);
    let begin = it.group * p.group;
    let entry = load_group(4u * at.item * p.width + at.d);
    unwind(it, at.d, begin, min(it.len, begin + p.group), entry);
}
