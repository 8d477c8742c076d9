// Counts the values that pack2x16float does not round as round_f16 does, to any NaN for a NaN: of every sign, exponent and
// significand that f16 can tell apart, those beside a tie, on it and between ties.

@group(0) @binding(0) var<storage, read_write> unlike: atomic<u32>;

@compute @workgroup_size(WORKGROUP)
fn count(@builtin(global_invocation_id) id: vec3<u32>) {
    var lows = array<u32, 6>(0u, 1u, 0xfffu, 0x1000u, 0x1001u, 0x1fffu);
    for (var k = 0u; k < 6u; k += 1u) {
        let v = bitcast<f32>((id.x << 13u) | lows[k]);
        let expected = round_f16(v);
        let got = pack2x16float(vec2<f32>(v, v));
        let both = got == (expected | (expected << 16u));
        let nan = (expected & 0x7fffu) > 0x7c00u && (got & 0x7fffu) > 0x7c00u && (got & 0x7fff0000u) > 0x7c000000u;
        if (!both && !nan) {
            atomicAdd(&unlike, 1u);
        }
    }
}
