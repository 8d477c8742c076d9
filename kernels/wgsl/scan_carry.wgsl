// Folds the groups of a sequence in order, from the exact carry: the entry of every group replaces its S, the carry out
// of the last goes to the state. One invocation a lane. 3·CHUNK loads are in flight before the fold of a batch begins,
// since the latency of the fold's operands, not the fold, bounds a long chain. Traffic: three reads and a write of one
// state a group.

@compute @workgroup_size(WORKGROUP)
fn carry_groups(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let at = place(workgroup, local);
    if (at.item >= p.items) {
        return;
    }
    // For packed sequences base is the sequence's first aggregate and len its groups.
    let it = item(at.item);
    let state = at.item * p.state_pitch + at.d;
    var carry = V(0.0);
    if ((p.flags & READ_STATE) != 0u) {
        carry = state_of(fetch_state(state));
    }
    let pitch = 3u * p.width;
    var i = it.base + at.d;
    var stride = pitch;
    if ((p.flags & BACKWARD) != 0u) {
        i += (it.len - 1u) * pitch;
        stride = 0u - pitch;
    }
    var left = it.len;
    while (left >= CHUNK) {
        //@each
        let s$ = fetch_agg(i + $u * stride);
        let m$ = fetch_agg(i + $u * stride + p.width);
        let n$ = fetch_agg(i + $u * stride + 2u * p.width);
        //@end
        //@each
        store_agg(i + $u * stride, carry);
        carry = fold(Pair(agg_of(m$), agg_of(n$)), carry, agg_of(s$));
        //@end
        i += CHUNK * stride;
        left -= CHUNK;
    }
    while (left > 0u) {
        let sum = agg_of(fetch_agg(i));
        let product = Pair(agg_of(fetch_agg(i + p.width)), agg_of(fetch_agg(i + 2u * p.width)));
        store_agg(i, carry);
        carry = fold(product, carry, sum);
        i += stride;
        left -= 1u;
    }
    if ((p.flags & WRITE_STATE) != 0u) {
        store_state(state, carry);
    }
}
