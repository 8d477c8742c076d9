//! The report in a real browser. Ignored where there is none, unless `SSM_REQUIRE` asks for `browser`.

mod chromium;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use ssm_testkit::required;

use chromium::{Page, find, switches};

type Test = (&'static str, fn(&mut Page, &Path) -> Result<()>);

const TESTS: [Test; 8] = [
    ("the_page_opens_alone_and_without_errors", opens),
    ("plots_are_there_and_not_empty", plots),
    ("columns_sort", columns),
    ("the_filter_hides_rows_and_marks", filter),
    ("hovering_shows_the_numbers", hover),
    ("nothing_is_missing_without_scripts", without_scripts),
    ("dark_light_and_paper_are_readable", media),
    ("a_narrow_window_scrolls_tables_only", narrow),
];

fn main() -> ExitCode {
    let (browser, required) = (find(), required("browser"));
    let ignored = browser.is_err() && !required;
    let trials = TESTS.map(|(name, test)| {
        let browser = browser.clone();
        Trial::test(name, move || {
            let run = || -> Result<()> {
                let dir = fresh(name)?;
                let report = report(&dir)?;
                let mut page = Page::new(&browser.map_err(anyhow::Error::msg)?, &dir.join("profile"))?;
                page.open(&report)?;
                test(&mut page, &report)?;
                let errors = page.errors();
                ensure!(errors.is_empty(), "{}", errors.join("\n"));
                Ok(())
            };
            run().map_err(|error| Failed::from(format!("{error:?}")))
        })
        .with_ignored_flag(ignored)
    });
    let draw = Trial::test("screenshot_for_the_docs", move || {
        let run = || -> Result<()> { screenshot(&browser.map_err(anyhow::Error::msg)?) };
        run().map_err(|error| Failed::from(format!("{error:?}")))
    });
    let trials = trials.into_iter().chain([draw.with_ignored_flag(true)]).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// An empty folder of this test's own.
fn fresh(name: &str) -> Result<PathBuf> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser").join(name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Makes the report over both fixtures.
fn report(dir: &Path) -> Result<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("report").args(["quick-cpu.json", "made-up.json"].map(|name| fixtures.join(name)));
    let out = command.arg("--out").arg(dir).output()?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(dir.join("report.html"))
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn opens(page: &mut Page, report: &Path) -> Result<()> {
    ensure!(page.eval("document.title")? == "Gated scan benchmarks");
    ensure!(page.eval("document.querySelectorAll('.cautions li').length")? != 0, "a noisy run has to say so");
    let asked = page.requests();
    let alone = asked.iter().all(|url| url.starts_with("data:") || url.ends_with("report.html"));
    ensure!(alone && !asked.is_empty(), "{} asked for {asked:?}", report.display());
    // An error is reported: otherwise its absence proves nothing.
    page.eval(
        "setTimeout(() => { throw new Error('on purpose'); }); new Promise((go) => setTimeout(go, 50))",
    )?;
    let errors = page.errors();
    ensure!(errors.len() == 1 && errors[0].contains("on purpose"), "{errors:?}");
    page.forget_errors();
    Ok(())
}

/// Every plot has a size, ticks, a legend, and marks inside of it.
fn plots(page: &mut Page, report: &Path) -> Result<()> {
    let files = std::fs::read_dir(report.with_file_name("plots"))?.count() as u64;
    let plots = page.eval(
        "[...document.querySelectorAll('figure svg.plot')].map((svg) => {
            const frame = svg.getBoundingClientRect();
            const marks = [...svg.querySelectorAll('.mark[tabindex]')];
            const boxes = marks.map((mark) => mark.getBoundingClientRect());
            const inside = (box) => box.width > 2 && box.height > 2 && box.left >= frame.left - 1
                && box.right <= frame.right + 1 && box.top >= frame.top - 1 && box.bottom <= frame.bottom + 1;
            return {
                name: svg.getAttribute('aria-label'), width: frame.width, height: frame.height,
                marks: marks.length, inside: boxes.filter(inside).length,
                ticks: [...svg.querySelectorAll('text')].filter((text) => text.textContent.trim()).length,
                colours: new Set(marks.map((mark) => getComputedStyle(mark).stroke)).size,
            };
        })",
    )?;
    let plots = plots.as_array().context("no plots")?;
    ensure!(plots.len() as u64 == files && files > 10, "{} plots, {files} files", plots.len());
    for plot in plots {
        let (marks, inside) = (count(&plot["marks"]), count(&plot["inside"]));
        let sized = plot["width"].as_f64() > Some(200.0) && plot["height"].as_f64() > Some(100.0);
        ensure!(marks > 0 && marks == inside && sized && count(&plot["ticks"]) > 4, "{plot}");
        ensure!(count(&plot["colours"]) > 0, "{plot}");
    }
    let ids = page.eval("[...document.querySelectorAll('figure')].map((figure) => figure.id).join(' ')")?;
    let ids = ids.as_str().unwrap_or_default().to_owned();
    for part in
        ["bandwidth-", "speed-up-", "time-by-l-", "time-by-d-", "memory", "error-", "launch", "training-"]
    {
        ensure!(ids.contains(part), "no figure {part} in {ids}");
    }
    Ok(())
}

/// The values of one column of the table of every row, as they stand.
const COLUMN: &str = "const table = document.querySelector('#rows table');
    const at = (name) => [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === name);
    const column = (name) => [...table.tBodies[0].rows].map((row) => row.cells[at(name)]);
    const press = (name) => table.tHead.rows[0].cells[at(name)].querySelector('button').click();";

fn columns(page: &mut Page, _: &Path) -> Result<()> {
    let sorted = |page: &mut Page, presses: usize, name: &str, value: &str| -> Result<Vec<Value>> {
        let presses = format!("press('{name}');").repeat(presses);
        let read = format!("{{ {COLUMN} {presses} column('{name}').map((cell) => {value}) }}");
        Ok(page.eval(&read)?.as_array().cloned().unwrap_or_default())
    };
    let value = "cell.dataset.value === undefined ? null : Number(cell.dataset.value)";
    let numbers = |values: &[Value]| values.iter().filter_map(Value::as_f64).collect::<Vec<f64>>();
    for name in ["time", "share", "B×L×D"] {
        let before = sorted(page, 0, name, value)?;
        let up = sorted(page, 1, name, value)?;
        let down = sorted(page, 1, name, value)?;
        ensure!(!numbers(&before).is_sorted(), "{name} is in order before anyone asked");
        ensure!(numbers(&up).is_sorted() && numbers(&down).iter().rev().is_sorted(), "{name}");
        ensure!(up.len() == before.len() && numbers(&up).len() == numbers(&down).len(), "{name} lost rows");
        let values = numbers(&up).len();
        let last = |all: &[Value]| all[values..].iter().all(Value::is_null);
        ensure!(last(&up) && last(&down), "{name}: what has no value comes last");
    }
    let names = sorted(page, 1, "backend", "cell.textContent")?;
    let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
    ensure!(names.is_sorted() && names.len() > 100, "{names:?}");
    let marked =
        page.eval("[...document.querySelectorAll('[aria-sort]')].map((h) => h.textContent).join()")?;
    ensure!(marked == "backend", "one column at a time is marked as sorted: {marked}");
    Ok(())
}

fn filter(page: &mut Page, _: &Path) -> Result<()> {
    let seen = |page: &mut Page, what: &str, name: &str| -> Result<u64> {
        let seen = format!(
            "[...document.querySelectorAll('{what}[data-{name}]')].filter((e) => e.getClientRects().length).length"
        );
        Ok(count(&page.eval(&seen)?))
    };
    for (name, value) in [("backend", "cuda"), ("type", "bf16"), ("direction", "backward"), ("run", "A")] {
        let all = (seen(page, "tr", name)?, seen(page, "g.series", name)?);
        let of = format!("=\"{value}\"");
        let chosen = |what: &str| format!("{what}[data-{name}{of}]");
        let press = format!("document.querySelector('input[name=\"{name}\"][value=\"{value}\"]').click()");
        page.eval(&press)?;
        let left = (seen(page, "tr", name)?, seen(page, "g.series", name)?);
        ensure!(left.0 < all.0 && left.0 > 0, "{name}: {} of {} rows", left.0, all.0);
        ensure!(left.1 < all.1 && left.1 > 0, "{name}: {} of {} series", left.1, all.1);
        for what in ["tr", "g.series", "figure"] {
            let still = format!(
                "[...document.querySelectorAll('{}')].filter((e) => e.getClientRects().length).length",
                chosen(what)
            );
            ensure!(page.eval(&still)? == 0, "{value} is still there as {what}");
        }
        let said = page.eval("document.querySelector('#filter output').textContent")?;
        let (shown, rows) = said.as_str().unwrap_or_default().split_once(" of ").context("no count")?;
        ensure!(rows != format!("{shown} rows"), "the count says {shown} of {rows}");
        page.eval(&press)?;
        ensure!(
            (seen(page, "tr", name)?, seen(page, "g.series", name)?) == all,
            "{value} does not come back"
        );
    }
    Ok(())
}

fn hover(page: &mut Page, _: &Path) -> Result<()> {
    let mark = "document.querySelector('#bandwidth-forward .mark[tabindex]')";
    page.eval(&format!("{mark}.scrollIntoView({{block: 'center'}})"))?;
    let at = page.eval(&format!(
        "(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({mark}.getBoundingClientRect())"
    ))?;
    let tip = "document.getElementById('tip')";
    ensure!(page.eval(&format!("{tip}.hidden"))? == true);
    let mut point = |x: &Value, y: &Value| {
        page.call("Input.dispatchMouseEvent", json!({"type": "mouseMoved", "x": x, "y": y}))?;
        page.eval(&format!("{tip}.hidden ? null : {tip}.textContent"))
    };
    let said = point(&at[0], &at[1])?;
    let said = said.as_str().context("no tooltip")?;
    ensure!(["forward", "ms", "GB/s", "p10"].iter().all(|word| said.contains(word)), "{said}");
    ensure!(point(&json!(2), &json!(2))?.is_null(), "the tooltip stays");
    Ok(())
}

fn without_scripts(page: &mut Page, report: &Path) -> Result<()> {
    page.call("Emulation.setScriptExecutionDisabled", json!({"value": true}))?;
    page.open(report)?;
    let seen = page.eval(
        "({
            marks: document.querySelectorAll('.mark[tabindex]').length,
            tips: [...document.querySelectorAll('.mark[tabindex] title')].filter((t) => t.textContent).length,
            rows: document.querySelectorAll('tbody tr').length,
            form: document.getElementById('filter').getClientRects().length,
            buttons: document.querySelectorAll('button').length,
            tip: document.getElementById('tip') === null,
        })",
    )?;
    ensure!(seen["tip"] == true, "the script ran after all");
    ensure!(count(&seen["marks"]) > 100 && seen["marks"] == seen["tips"], "tooltips of the browser: {seen}");
    ensure!(count(&seen["rows"]) > 100 && seen["form"] == 0 && seen["buttons"] == 0, "{seen}");
    Ok(())
}

/// Page, text and the colours of marks in both schemes and on paper: text stands out by 7 to 1, marks by 2 to 1.
fn media(page: &mut Page, _: &Path) -> Result<()> {
    let luminance = |colour: &Value| {
        let text = colour.as_str().unwrap_or_default();
        let numbers = text.trim_start_matches(|c: char| !c.is_ascii_digit()).trim_end_matches(')');
        let linear = numbers.split(", ").take(3).map(|n| {
            let c = n.parse::<f64>().unwrap_or(f64::NAN) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        });
        linear.zip([0.2126, 0.7152, 0.0722]).map(|(c, weight)| c * weight).sum::<f64>() + 0.05
    };
    for (media, scheme, is_light) in
        [("screen", "light", true), ("screen", "dark", false), ("print", "dark", true)]
    {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        page.call("Emulation.setEmulatedMedia", json!({"media": media, "features": features}))?;
        let seen = page.eval(
            "(() => {
                const style = (e) => getComputedStyle(typeof e === 'string' ? document.querySelector(e) : e);
                return {
                    page: style('body').backgroundColor, text: style('td').color,
                    plot: style('svg.plot').backgroundColor, label: style('svg.plot text').fill,
                    marks: [...new Set([...document.querySelectorAll('.mark')].map((m) => style(m).stroke))],
                    filter: document.getElementById('filter').getClientRects().length,
                };
            })()",
        )?;
        let light = luminance(&seen["page"]);
        ensure!((light > 0.5) == is_light, "{media}, {scheme}: {seen}");
        let contrast = |one: f64, two: f64| one.max(two) / one.min(two);
        ensure!(contrast(light, luminance(&seen["text"])) > 7.0, "{media}, {scheme}: {seen}");
        let plot = luminance(&seen["plot"]);
        ensure!(contrast(plot, luminance(&seen["label"])) > 7.0, "{media}, {scheme}: {seen}");
        for mark in seen["marks"].as_array().context("no marks")? {
            ensure!(contrast(plot, luminance(mark)) > 2.0, "{media}, {scheme}: {mark} on {}", seen["plot"]);
        }
        ensure!((seen["filter"] == 0) == (media == "print"), "{media}: {seen}");
    }
    let paper = page.call("Page.printToPDF", json!({"preferCSSPageSize": true}))?;
    ensure!(paper["data"].as_str().is_some_and(|data| data.len() > 50_000), "it prints");
    Ok(())
}

fn narrow(page: &mut Page, _: &Path) -> Result<()> {
    let metrics = json!({"width": 420, "height": 900, "deviceScaleFactor": 1, "mobile": false});
    page.call("Emulation.setDeviceMetricsOverride", metrics)?;
    let wide = page.eval("document.documentElement.scrollWidth")?;
    ensure!(count(&wide) <= 420, "the page is {wide} wide in a window of 420");
    Ok(())
}

/// Writes docs/report.png. The numbers in it are the fixtures'.
fn screenshot(browser: &Path) -> Result<()> {
    let dir = fresh("screenshot")?;
    let report = report(&dir)?;
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/report.png");
    let mut command = Command::new(browser);
    command.args(switches(&dir.join("profile"))).arg("--window-size=1000,1060");
    command.arg(format!("--screenshot={}", picture.display())).arg(format!("file://{}", report.display()));
    let out = command.output()?;
    ensure!(out.status.success() && picture.exists(), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}
