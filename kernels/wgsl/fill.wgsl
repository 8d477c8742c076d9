// Zeros for the rows that belong to no packed sequence. Only one of the outputs is bound.

@compute @workgroup_size(WORKGROUP)
fn fill(here: Here) {
    let at = place(here);
    if (at.item >= p.items) {
        return;
    }
    let i = at.item * p.step + at.d;
    store_y(i, V(0.0));
    store_dx(i, V(0.0));
    store_saved(i, V(0.0));
}
