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

// h before the first step of a chunk. With SAVE_H the item's saved index is that of its h0.
fn chunk_entry(it: Item, d: u32, t: u32) -> V {
    if (SAVE_H) {
        if (t == 0u) {
            return h0_of(fetch_h0(it.saved + d));
        }
        return saved_of(fetch_saved(it.base + (t - 1u) * p.step + d));
    }
    return saved_of(fetch_saved(it.saved + t / CHUNK * p.saved_pitch + d));
}

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
            if (SAVE_H) {
                h = saved_of(fetch_saved(i + $u * p.step));
            } else {
                h = fma(a_of(a$), h, mul(b_of(b$), x_of(x$)));
            }
            let h$ = h;
            //@end
            //@each_back
            let g$ = fma(c_of(c$), dy_of(dy$), r.h);
            let dx$ = pack_dx(b_of(b$) * g$);
            let db$ = pack_db(x_of(x$) * g$);
            let dc$ = pack_dc(dy_of(dy$) * h$);
            let da$ = pack_da(prev$ * g$);
            let ready$ = dx_bits(dx$) | db_bits(db$) | dc_bits(dc$) | da_bits(da$);
            put_dx(i + $u * p.step, dx$, ready$);
            put_db(i + $u * p.step, db$, ready$);
            put_dc(i + $u * p.step, dc$, ready$);
            put_da(i + $u * p.step, da$, ready$);
            r = retreat(r, a_of(a$), g$, c_of(c$), dy_of(dy$));
            //@end
        } else {
            // The tail of a sequence, step by step.
            var hs: array<V, CHUNK + 1u>;
            hs[0] = before;
            for (var k = 0u; k < t - first; k += 1u) {
                let j = i + k * p.step;
                if (SAVE_H) {
                    hs[k + 1u] = saved_of(fetch_saved(j));
                } else {
                    hs[k + 1u] = fma(a_of(fetch_a(j)), hs[k], mul(b_of(fetch_b(j)), x_of(fetch_x(j))));
                }
            }
            for (var k = t - first; k > 0u; k -= 1u) {
                let j = i + (k - 1u) * p.step;
                let a = a_of(fetch_a(j));
                let c = c_of(fetch_c(j));
                let dy = dy_of(fetch_dy(j));
                let g = fma(c, dy, r.h);
                store_dx(j, b_of(fetch_b(j)) * g);
                store_db(j, x_of(fetch_x(j)) * g);
                store_dc(j, dy * hs[k]);
                store_da(j, hs[k - 1u] * g);
                r = retreat(r, a, g, c, dy);
            }
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
