// Conversions between bf16 and f32. 16-bit elements travel as halves of a 32-bit word, the element with the even index
// in the low half, so that no adapter feature is needed.

fn decode_bf16(w: u32) -> vec2<f32> {
    return vec2<f32>(bitcast<f32>(w << 16u), bitcast<f32>(w & 0xffff0000u));
}

// Rounds to nearest, ties to even, into the upper half of a word. Of NaNs there is one, so that rounding cannot turn one
// into an infinity; a shift to the left is a product, where a mask would be one more operation on bits.
fn near_bf16(v: f32) -> u32 {
    let bits = bitcast<u32>(v);
    let rounded = bits + 0x7fffu + ((bits >> 16u) & 1u);
    return select(rounded, 0x7fc00000u, (bits << 1u) > 0xff000000u);
}

fn round_bf16(v: f32) -> u32 {
    return near_bf16(v) >> 16u;
}

fn encode_bf16(v: vec2<f32>) -> u32 {
    return round_bf16(v.x) | (near_bf16(v.y) & 0xffff0000u);
}
