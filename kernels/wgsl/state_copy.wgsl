// Copies rows of states, or writes zeros where there is no source: the start of a carry that is kept in place, and the
// final states of sequences without a step.

@compute @workgroup_size(WORKGROUP)
fn copy(here: Here) {
    let at = place(here);
    if (at.item >= p.items) {
        return;
    }
    store_state(at.item * p.state_pitch + at.d, h0_of(fetch_h0(at.item * p.saved_pitch + at.d)));
}
