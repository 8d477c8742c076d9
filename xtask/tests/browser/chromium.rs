//! A headless Chromium, driven through the pipe of its DevTools protocol: JSON messages that end with a zero byte.
//!
//! The pipe is file descriptors 3 and 4, which a shell makes out of standard input and output. That takes a hundred
//! lines; the libraries for it bring a WebSocket client, an HTTP client and an async runtime.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

/// A reply that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a browser does of its own accord is switched off: it would look for its maker's hosts.
const SWITCHES: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
];

/// The browser's program: `SSM_BROWSER`, or a Chromium by one of its names.
pub(crate) fn find() -> Result<PathBuf, String> {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"].map(PathBuf::from);
    let answers = |program: &PathBuf| {
        let mut command = Command::new(program);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !cfg!(unix) {
        return Err("the browser is driven through a pipe that only Unix has".to_owned());
    }
    let named = std::env::var_os("SSM_BROWSER").map(PathBuf::from);
    let missing = "no Chromium: install one, or name it in SSM_BROWSER";
    named.into_iter().chain(names).find(answers).ok_or(missing.to_owned())
}

/// The switches and a profile of its own.
pub(crate) fn switches(profile: &Path) -> Vec<String> {
    let profile = format!("--user-data-dir={}", profile.display());
    SWITCHES.iter().map(|s| (*s).to_owned()).chain([profile]).collect()
}

/// One browser with one page.
pub(crate) struct Page {
    child: Child,
    to: Option<ChildStdin>,
    from: Receiver<Value>,
    session: Option<String>,
    next: u64,
    events: VecDeque<Value>,
}

impl Page {
    /// An empty page that reports errors and requests.
    pub(crate) fn new(program: &Path, profile: &Path) -> Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 1>&2"#])
            .arg(program)
            .args(switches(profile))
            .args(["--remote-debugging-pipe", "--window-size=1280,900", "about:blank"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let to = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().context("the pipe from the browser")?);
        let (sender, from) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while stdout.read_until(0, &mut message).is_ok_and(|count| count > 0) {
                let text = message.strip_suffix(&[0]).unwrap_or(&message);
                let Ok(value) = serde_json::from_slice(text) else { break };
                if sender.send(value).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let mut page = Self { child, to, from, session: None, next: 0, events: VecDeque::new() };
        let target = page.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        page.session = page.call("Target.attachToTarget", attach)?["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(page)
    }

    /// One command and its result.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let to = self.to.as_mut().context("the pipe to the browser")?;
        to.write_all(message.to_string().as_bytes())?;
        to.write_all(&[0])?;
        to.flush()?;
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let reply = self.from.recv_timeout(left).with_context(|| format!("no reply to {method}"))?;
            if reply["id"] != self.next {
                self.events.push_back(reply);
                continue;
            }
            ensure!(reply["error"].is_null(), "{method}: {}", reply["error"]);
            return Ok(reply["result"].clone());
        }
    }

    /// Opens a file and waits until it has loaded.
    pub(crate) fn open(&mut self, file: &Path) -> Result<()> {
        self.events.retain(|event| event["method"] != "Page.loadEventFired");
        let opened = self.call("Page.navigate", json!({"url": format!("file://{}", file.display())}))?;
        ensure!(opened["errorText"].is_null(), "{}", opened["errorText"]);
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            self.events.push_back(self.from.recv_timeout(PATIENCE).context("the page does not load")?);
        }
        Ok(())
    }

    /// The value of an expression.
    pub(crate) fn eval(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", asked)?;
        if !answer["exceptionDetails"].is_null() {
            bail!("{expression}: {}", answer["exceptionDetails"]["exception"]["description"]);
        }
        Ok(answer["result"]["value"].clone())
    }

    /// What went wrong on the page: exceptions, errors in the console and in the log.
    pub(crate) fn errors(&self) -> Vec<String> {
        let is_error = |event: &&Value| {
            let params = &event["params"];
            match event["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                Some("Runtime.consoleAPICalled") => params["type"] == "error",
                Some("Log.entryAdded") => params["entry"]["level"] == "error",
                _ => false,
            }
        };
        self.events.iter().filter(is_error).map(|event| event["params"].to_string()).collect()
    }

    /// Forgets an error that was made on purpose.
    pub(crate) fn forget_errors(&mut self) {
        self.events.retain(|event| event["method"] != "Runtime.exceptionThrown");
    }

    /// The addresses that were asked for.
    pub(crate) fn requests(&self) -> Vec<String> {
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.filter_map(|event| event["params"]["request"]["url"].as_str().map(str::to_owned)).collect()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Asked first, so that the processes that it started end with it.
        self.session = None;
        let _ = self.call("Browser.close", json!({}));
        self.to = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
