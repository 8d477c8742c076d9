// Items of packed sequences: one table entry each. The table is a uniform, which leaves the storage bindings, the
// scarce ones, to the tensors.

@group(0) @binding(1) var<uniform> table: array<vec4<u32>, TABLE>;

fn item(i: u32) -> Item {
    let e = table[i];
    return Item(e.x, e.y, e.z, e.w);
}
