// Conversions between f16 and f32, two to a word as in bf16.wgsl. Only in kernels that bind an f16 operand: the one
// built-in used here is not on every adapter.

fn decode_f16(w: u32) -> vec2<f32> {
    return unpack2x16float(w);
}

// Rounds to nearest, ties to even. WGSL leaves the rounding of pack2x16float to the driver, and its result undefined past
// 65504: it is used where the device was asked and rounds so (half_rounding.wgsl), and integers elsewhere.
fn round_f16(v: f32) -> u32 {
    if (PACKS) {
        return pack2x16float(vec2<f32>(v, 0.0));
    }
    let bits = bitcast<u32>(v);
    let sign = (bits >> 16u) & 0x8000u;
    let mag = bits & 0x7fffffffu;
    // 0x38800000 is 2^-14, the least normal f16; from 0x477ff000 (65520) on, rounding gives infinity.
    let normal = (mag - 0x38000000u + 0xfffu + ((mag >> 13u) & 1u)) >> 13u;
    // Below it the unit is 2^-24, the last bit of a sum with 1/2: the addition rounds.
    let subnormal = bitcast<u32>(bitcast<f32>(mag) + 0.5) - 0x3f000000u;
    var out = select(normal, subnormal, mag < 0x38800000u);
    out = select(out, 0x7c00u, mag >= 0x477ff000u);
    out = select(out, 0x7e00u, mag > 0x7f800000u);
    return sign | out;
}

fn encode_f16(v: vec2<f32>) -> u32 {
    if (PACKS) {
        return pack2x16float(v);
    }
    return round_f16(v.x) | (round_f16(v.y) << 16u);
}
