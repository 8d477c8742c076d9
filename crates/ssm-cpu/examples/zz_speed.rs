use half::{bf16, f16};
use ssm_core::*;
use ssm_cpu::*;
use std::time::Instant;
fn triad<const R: usize, const W: usize>(src: &[Vec<f32>], dst: &mut [Vec<f32>], threads: usize) {
    // NT copy-like: sum of R inputs to W outputs
    let n = src[0].len();
    let sp: Vec<usize> = src.iter().map(|s| s.as_ptr() as usize).collect();
    let dp: Vec<usize> = dst.iter_mut().map(|s| s.as_mut_ptr() as usize).collect();
    std::thread::scope(|sc| {
        for t in 0..threads {
            let sp = &sp;
            let dp = &dp;
            sc.spawn(move || unsafe {
                part::<R, W>(sp, dp, n * t / threads / 64 * 64, n * (t + 1) / threads / 64 * 64)
            });
        }
    });
}
#[target_feature(enable = "avx2,fma")]
unsafe fn part<const R: usize, const W: usize>(sp: &[usize], dp: &[usize], lo: usize, hi: usize) {
    unsafe {
        use std::arch::x86_64::*;
        let mut s = [std::ptr::null::<f32>(); R];
        for i in 0..R {
            s[i] = sp[i] as *const f32
        }
        let mut d = [std::ptr::null_mut::<f32>(); W];
        for i in 0..W {
            d[i] = dp[i] as *mut f32
        }
        let off = (64 - (dp[0] % 64)) / 4 % 16;
        let mut i = lo + off;
        while i + 16 <= hi {
            for k in 0..2 {
                let mut v = _mm256_loadu_ps(s[0].add(i + 8 * k));
                for r in 1..R {
                    v = _mm256_add_ps(v, _mm256_loadu_ps(s[r].add(i + 8 * k)));
                }
                for w in 0..W {
                    let p = d[w].add(i + 8 * k);
                    if (p as usize) % 32 == 0 { _mm256_stream_ps(p, v) } else { _mm256_storeu_ps(p, v) }
                }
            }
            i += 16;
        }
        _mm_sfence();
    }
}
fn med(mut v: Vec<f64>) -> f64 {
    v.sort_by(|a, b| a.total_cmp(b));
    v[v.len() / 2]
}
fn bench<E: Element>(b: usize, l: usize, d: usize, alg: Option<Algorithm>)
where
    E: Element,
{
    let n = b * l * d;
    let threads = rayon::current_num_threads();
    let mut seed = 1u64;
    let mut r = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
        ((seed >> 40) as f64) / ((1u64 << 24) as f64)
    };
    let mk = |r: &mut dyn FnMut() -> f64| -> Vec<E> { (0..n).map(|_| E::from_f64(r())).collect() };
    let (x, a, bb, c, dy) = (mk(&mut r), mk(&mut r), mk(&mut r), mk(&mut r), mk(&mut r));
    let mut y = vec![E::default(); n];
    let be = CpuBackend::new();
    let p = GatedScan::builder(b, l, d).dtype(E::DTYPE).build().unwrap();
    let opt = PlanOptions { algorithm: alg };
    let pf = Kernel::<ScanForward>::plan(&be, &p.forward(), &opt).unwrap();
    let op = p.backward(Grads::all(&p)).unwrap();
    let pb = Kernel::<ScanBackward>::plan(&be, &op, &opt).unwrap();
    let mut saved = vec![<E::Acc>::default(); pf.report().saved as usize];
    let ws = pf.report().workspace_bytes.max(pb.report().workspace_bytes) as usize;
    let mut w = vec![0f32; ws / 4 + 16];
    let mut g: Vec<Vec<E>> = (0..4).map(|_| vec![E::default(); n]).collect();
    let nf = n * E::DTYPE.size() as usize / 4;
    let src: Vec<Vec<f32>> = (0..5).map(|_| vec![1f32; nf]).collect();
    let mut dst: Vec<Vec<f32>> = (0..4).map(|_| vec![1f32; nf]).collect();
    let (mut tf, mut tb, mut t4, mut t5) = (vec![], vec![], vec![], vec![]);
    let reps = ((1usize << 28) / n).clamp(5, 60);
    if std::env::var("LOOP").is_ok() {
        for which in 0..2 {
            let it = (1usize << 31) / n / if which == 0 { 2 } else { 4 };
            let t = Instant::now();
            for _ in 0..it {
                if which == 0 {
                    pf.run(
                        &be,
                        ForwardArgs {
                            x: x.as_slice().into(),
                            a: a.as_slice().into(),
                            b: Some(bb.as_slice().into()),
                            c: Some(c.as_slice().into()),
                            h0: None,
                            y: y.as_mut_slice().into(),
                            final_state: None,
                            saved: Some(saved.as_mut_slice().into()),
                        },
                        Some(w.as_mut_slice().into()),
                        (),
                    )
                    .unwrap();
                } else {
                    let [g0, g1, g2, g3] = &mut g[..] else { panic!() };
                    pb.run(
                        &be,
                        BackwardArgs {
                            x: x.as_slice().into(),
                            a: a.as_slice().into(),
                            b: Some(bb.as_slice().into()),
                            c: Some(c.as_slice().into()),
                            h0: None,
                            saved: Some(saved.as_slice().into()),
                            dy: dy.as_slice().into(),
                            d_final_state: None,
                            dx: Some(g0.as_mut_slice().into()),
                            da: Some(g1.as_mut_slice().into()),
                            db: Some(g2.as_mut_slice().into()),
                            dc: Some(g3.as_mut_slice().into()),
                            dh0: None,
                        },
                        Some(w.as_mut_slice().into()),
                        (),
                    )
                    .unwrap();
                }
            }
            let e = t.elapsed().as_secs_f64();
            println!(
                "{} loop {which}: {:.2} ns per 16 lanes, {:.1} GB/s",
                E::DTYPE,
                e * 1e9 / (it * n) as f64 * 16.,
                (if which == 0 { 5 } else { 9 }) as f64 * E::DTYPE.size() as f64 * (it * n) as f64 / e * 1e-9
            );
        }
        return;
    }
    for _ in 0..reps {
        let t = Instant::now();
        pf.run(
            &be,
            ForwardArgs {
                x: x.as_slice().into(),
                a: a.as_slice().into(),
                b: Some(bb.as_slice().into()),
                c: Some(c.as_slice().into()),
                h0: None,
                y: y.as_mut_slice().into(),
                final_state: None,
                saved: Some(saved.as_mut_slice().into()),
            },
            Some(w.as_mut_slice().into()),
            (),
        )
        .unwrap();
        tf.push(t.elapsed().as_secs_f64());
        let t = Instant::now();
        triad::<4, 1>(&src[..4], &mut dst[..1], threads);
        t4.push(t.elapsed().as_secs_f64());
        let t = Instant::now();
        let [g0, g1, g2, g3] = &mut g[..] else { panic!() };
        pb.run(
            &be,
            BackwardArgs {
                x: x.as_slice().into(),
                a: a.as_slice().into(),
                b: Some(bb.as_slice().into()),
                c: Some(c.as_slice().into()),
                h0: None,
                saved: Some(saved.as_slice().into()),
                dy: dy.as_slice().into(),
                d_final_state: None,
                dx: Some(g0.as_mut_slice().into()),
                da: Some(g1.as_mut_slice().into()),
                db: Some(g2.as_mut_slice().into()),
                dc: Some(g3.as_mut_slice().into()),
                dh0: None,
            },
            Some(w.as_mut_slice().into()),
            (),
        )
        .unwrap();
        tb.push(t.elapsed().as_secs_f64());
        let t = Instant::now();
        triad::<5, 4>(&src, &mut dst, threads);
        t5.push(t.elapsed().as_secs_f64());
    }
    let (rf, rb) =
        (t4.iter().zip(&tf).map(|(a, b)| a / b).collect(), t5.iter().zip(&tb).map(|(a, b)| a / b).collect());
    let sz = E::DTYPE.size() as f64 * n as f64 * 1e-9;
    println!(
        "{:>5} ({b},{l},{d}) {}/{} fwd {:.2} ({:.1} GB/s of {:.1})  bwd {:.2} ({:.1} of {:.1})",
        E::DTYPE,
        pf.report().algorithm,
        pb.report().algorithm,
        med(rf),
        5. * sz / med(tf),
        5. * sz / med(t4),
        med(rb),
        9. * sz / med(tb),
        9. * sz / med(t5)
    );
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let alg = args.get(1).and_then(|s| match s.as_str() {
        "march" => Some(Algorithm::March),
        "chunked" => Some(Algorithm::Chunked),
        "seq" => Some(Algorithm::Sequential),
        _ => None,
    });
    if let Some(s) = args.get(2) {
        let v: Vec<usize> = s.split(",").map(|q| q.parse().unwrap()).collect();
        match args[3].as_str() {
            "f32" => bench::<f32>(v[0], v[1], v[2], alg),
            "f16" => bench::<f16>(v[0], v[1], v[2], alg),
            _ => bench::<bf16>(v[0], v[1], v[2], alg),
        };
        return;
    }
    for (b, l, d) in [(4, 4096, 1024), (8, 2048, 512), (1, 262144, 64), (1, 16384, 1000), (64, 37, 300)] {
        bench::<f32>(b, l, d, alg);
        bench::<f16>(b, l, d, alg);
        bench::<bf16>(b, l, d, alg);
    }
}
