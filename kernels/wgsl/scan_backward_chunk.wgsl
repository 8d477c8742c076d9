// What every backward kernel does with a chunk: h before it and along it, its gradients stored, and its tail.

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

// h after the step whose element is j, from h before it.
fn state_after(j: u32, h: V, a: V, b: V, x: V) -> V {
    if (SAVE_H) {
        return saved_of(fetch_saved(j));
    }
    return fma(a, h, mul(b, x));
}

// All are rounded before the first is stored: `put` says why in accessors.rs.
fn store_gradients(j: u32, dx: V, db: V, dc: V, da: V) {
    let x = pack_dx(dx);
    let b = pack_db(db);
    let c = pack_dc(dc);
    let a = pack_da(da);
    let ready = dx_bits(x) | db_bits(b) | dc_bits(c) | da_bits(a);
    put_dx(j, x, ready);
    put_db(j, b, ready);
    put_dc(j, c, ready);
    put_da(j, a, ready);
}

// The tail of a sequence, step by step: n steps of a chunk, of which i is the first one's element, with h before them.
fn unwind_steps(i: u32, n: u32, before: V, entry: Run) -> Run {
    var hs: array<V, CHUNK + 1u>;
    hs[0] = before;
    for (var k = 0u; k < n; k += 1u) {
        let j = i + k * p.step;
        hs[k + 1u] = state_after(j, hs[k], a_of(fetch_a(j)), b_of(fetch_b(j)), x_of(fetch_x(j)));
    }
    var r = entry;
    for (var k = n; k > 0u; k -= 1u) {
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
    return r;
}
