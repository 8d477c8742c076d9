//! How a kernel reads and writes one operand.
//!
//! Of a slot x: `fetch_x` reads what is stored, `x_bits` says what it is in bits, `x_of` turns it into V. `pack_x` rounds
//! once, to what `put_x` writes; `store_x` is both. `fetch_x_on` and `put_x_on` go some words on from an element.

use std::fmt::Write as _;

use ssm_core::DType;

use crate::shader::{Form, PipelineKey, Slot};

/// The bodies of the functions. `j` is the element in the binding, `v` a V, `w` what is stored.
struct Access {
    element: &'static str,
    word: &'static str,
    fetch: String,
    of: String,
    pack: String,
    /// With what it may know: drivers check each store against its buffer's end, by a branch into which they move what
    /// the store alone needs. After the bits of its neighbours it has little of its own left to move.
    put: String,
}

pub(crate) fn write(out: &mut String, key: &PipelineKey, slot: Slot) {
    let n = slot.name();
    // Writing to a String cannot fail.
    if !key.key.slots.has(slot) {
        let _ = write!(
            out,
            "fn fetch_{n}(i: u32) -> f32 {{ return {}; }}\nfn {n}_of(w: f32) -> V {{ return V(w); }}\n\
             fn {n}_bits(w: f32) -> u32 {{ return 0u; }}\nfn pack_{n}(v: V) -> f32 {{ return 0.0; }}\n\
             fn put_{n}(i: u32, w: f32, seen: u32) {{ }}\nfn store_{n}(i: u32, v: V) {{ }}\n",
            slot.neutral()
        );
        if key.form == Form::Turned {
            let _ = write!(
                out,
                "fn turn_{n}(w: f32, up: u32) -> f32 {{ return w; }}\nfn swap_{n}(w: f32) -> f32 {{ return w; }}\n\
                 fn fetch_{n}_on(i: u32, words: u32) -> f32 {{ return fetch_{n}(i); }}\n\
                 fn put_{n}_on(i: u32, words: u32, w: f32) {{ }}\n\
                 fn {n}_first(w: f32) -> V {{ return V(w); }}\nfn {n}_second(w: f32) -> V {{ return V(w); }}\n\
                 fn pair_{n}(first: V, second: V) -> f32 {{ return 0.0; }}\n"
            );
        }
        return;
    }
    let s = if key.level && slot.is_tensor() { Slot::X as u32 } else { slot as u32 };
    let at = format!("let j = p.offsets[{}][{}] + i;", s / 4, s % 4);
    let writes = key.key.writes(slot);
    let mode = if writes || key.shared { "read_write" } else { "read" };
    let Access { mut element, word, fetch, of, pack, put } = access(key, slot);
    let atomic = writes && put.contains("atomic");
    if atomic {
        element = "atomic<u32>";
    }
    let binding = slot.binding();
    let _ = writeln!(out, "@group(0) @binding({binding}) var<storage, {mode}> {n}_buf: array<{element}>;");
    // No kernel reads back a 16-bit output.
    if atomic {
        let _ = writeln!(out, "fn fetch_{n}(i: u32) -> u32 {{ return 0u; }}");
    } else {
        let _ = writeln!(out, "fn fetch_{n}(i: u32) -> {word} {{ {at} {fetch} }}");
    }
    let _ = writeln!(out, "fn {n}_of(w: {word}) -> V {{ {of} }}");
    let bits = match word {
        "u32" => "w",
        "f32" => "bitcast<u32>(w)",
        _ => "bitcast<u32>(w.x) | bitcast<u32>(w.y)",
    };
    let _ = writeln!(out, "fn {n}_bits(w: {word}) -> u32 {{ return {bits}; }}");
    if writes {
        let _ = writeln!(out, "fn pack_{n}(v: V) -> {word} {{ {pack} }}");
        let _ = writeln!(out, "fn put_{n}(i: u32, w: {word}, seen: u32) {{ {at} {put} }}");
        let owns = if key.form == Form::Turned && word == "u32" { "if (side == 0u) " } else { "" };
        let _ = writeln!(
            out,
            "fn store_{n}(i: u32, v: V) {{ let w = pack_{n}(v); {owns}{{ put_{n}(i, w, 0u); }} }}"
        );
    } else {
        let _ = writeln!(out, "fn store_{n}(i: u32, v: V) {{ }}");
    }
    if key.form == Form::Turned && word == "u32" {
        let half = half_of(key.key.dtype_of(slot));
        let _ = write!(
            out,
            "fn turn_{n}(w: u32, up: u32) -> u32 {{ return turn(w, up); }}\nfn swap_{n}(w: u32) -> u32 {{ return swap(w); }}\n\
             fn fetch_{n}_on(i: u32, words: u32) -> u32 {{ {at} return {n}_buf[(j >> 1u) + words]; }}\n\
             fn {n}_first(w: u32) -> V {{ return decode_{half}(w).x; }}\n\
             fn {n}_second(w: u32) -> V {{ return decode_{half}(w).y; }}\n\
             fn pair_{n}(first: V, second: V) -> u32 {{ return encode_{half}(vec2<f32>(first, second)); }}\n"
        );
        if writes {
            let _ = writeln!(
                out,
                "fn put_{n}_on(i: u32, words: u32, w: u32) {{ {at} {n}_buf[(j >> 1u) + words] = w; }}"
            );
        }
    }
}

fn half_of(dtype: DType) -> &'static str {
    if dtype == DType::Bf16 { "bf16" } else { "f16" }
}

fn access(key: &PipelineKey, slot: Slot) -> Access {
    let n = slot.name();
    let dtype = key.key.dtype_of(slot);
    let half = half_of(dtype);
    let whole = format!("{n}_buf[j >> 1u] = w ^ (seen & p.zero);");
    let words = |fetch: String, of: String, pack: String, put: String| Access {
        element: "u32",
        word: "u32",
        fetch,
        of,
        pack,
        put,
    };
    match (key.form, dtype.size()) {
        (Form::Pairs | Form::Spans, 2) => words(
            format!("return {n}_buf[j >> 1u];"),
            format!("return decode_{half}(w);"),
            format!("return encode_{half}(v);"),
            whole,
        ),
        (Form::Pairs | Form::Spans, _) => Access {
            element: "f32",
            word: "vec2<f32>",
            fetch: format!("return vec2<f32>({n}_buf[j], {n}_buf[j + 1u]);"),
            of: "return w;".into(),
            pack: "return v;".into(),
            put: format!("{n}_buf[j] = w.x; {n}_buf[j + 1u] = w.y;"),
        },
        (Form::Joined | Form::Turned, 2) => words(
            format!("return {n}_buf[j >> 1u];"),
            format!("return decode_{half}(w >> side).x;"),
            format!("let mine = round_{half}(v); return mine | (subgroupShuffleXor(mine, 1u) << 16u);"),
            if key.form == Form::Turned { whole } else { format!("if (side == 0u) {{ {whole} }}") },
        ),
        (Form::Halves | Form::Neighbours, 2) => words(
            format!("return ({n}_buf[j >> 1u] >> ((j & 1u) << 4u)) & 0xffffu;"),
            format!("return decode_{half}(w).x;"),
            format!("return round_{half}(v);"),
            put_half(n, key.form == Form::Neighbours),
        ),
        (_, _) => Access {
            element: "f32",
            word: "f32",
            fetch: format!("return {n}_buf[j];"),
            of: "return w;".into(),
            pack: "return v;".into(),
            put: format!("{n}_buf[j] = w;"),
        },
    }
}

/// Writes one half of word `j >> 1`.
fn put_half(n: &str, neighbours: bool) -> String {
    let own = format!(
        "let shift = (j & 1u) << 4u; atomicAnd(&{n}_buf[j >> 1u], 0xffff0000u >> shift); \
         atomicOr(&{n}_buf[j >> 1u], w << shift);"
    );
    if !neighbours {
        return own;
    }
    format!(
        "let other = subgroupShuffleDown(w, 1u); let odd = (j & 1u) == 1u; \
         if (above && !odd) {{ atomicStore(&{n}_buf[j >> 1u], w | (other << 16u)); }} \
         if (!select(above, below, odd)) {{ {own} }}"
    )
}
