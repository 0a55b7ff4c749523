//! A browser without a window, driven over its debugging port (the DevTools protocol).

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use jepsen_style_tests::http::Http;
use jepsen_style_tests::{Failure, Limit, Result, browser};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// How long the browser may take to start, and to answer one command.
const START_LIMIT: Duration = Duration::from_secs(30);
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The page's window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// `light` or `dark`.
    pub(crate) scheme: &'static str,
}

/// A running browser with one page. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Browser {
    child: Child,
    _profile: TempDir,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    last_id: u64,
    /// What went wrong in the page: errors on its console, exceptions, dialogs, violations of its policy.
    pub(crate) faults: Vec<String>,
    /// Addresses of everything it asked for.
    pub(crate) requests: Vec<String>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Browser {
    /// Starts the browser with an empty page.
    pub(crate) async fn start(program: &Path) -> Result<Self> {
        let profile = tempfile::tempdir()?;
        let child = browser::headless(program, profile.path())
            .args(["--remote-debugging-port=0", "about:blank"])
            .spawn()?;
        let socket = match attach(profile.path()).await {
            Ok(socket) => socket,
            Err(error) => {
                // It has no owner yet that would end it.
                let mut child = child;
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        };
        let (faults, requests) = (Vec::new(), Vec::new());
        let mut browser = Self { child, _profile: profile, socket, last_id: 0, faults, requests };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({})).await?;
        }
        Ok(browser)
    }

    /// Sends a command and waits for its result; notes the events that arrive before it.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last_id += 1;
        let command = json!({"id": self.last_id, "method": method, "params": params});
        let failed = |error| Failure::new(format!("{method}: {error}"));
        self.socket.send(Message::text(command.to_string())).await.map_err(failed)?;
        tokio::time::timeout(ANSWER_LIMIT, self.result(method))
            .await
            .map_err(|_| Failure::new(format!("{method}: no answer in {ANSWER_LIMIT:?}")))?
    }

    async fn result(&mut self, method: &str) -> Result<Value> {
        loop {
            let message = self.socket.next().await;
            let message = message.ok_or_else(|| Failure::new(format!("{method}: it is gone")))?;
            let message = message.map_err(|error| Failure::new(format!("{method}: {error}")))?;
            let Message::Text(text) = message else { continue };
            let mut told: Value = serde_json::from_str(&text)?;
            if told["id"] != self.last_id {
                self.note(&told);
            } else if told["error"].is_null() {
                return Ok(told["result"].take());
            } else {
                return Err(Failure::new(format!("{method}: {}", told["error"])));
            }
        }
    }

    fn note(&mut self, told: &Value) {
        let params = &told["params"];
        let is_fault = match told["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                let url = params["request"]["url"].as_str().unwrap_or_default();
                self.requests.push(url.to_owned());
                false
            }
            "Runtime.exceptionThrown" | "Page.javascriptDialogOpening" => true,
            "Runtime.consoleAPICalled" => params["type"] == "error" || params["type"] == "assert",
            // Refusals and lost servers are what these tests are about.
            "Log.entryAdded" => {
                params["entry"]["level"] == "error" && params["entry"]["source"] != "network"
            }
            _ => false,
        };
        if is_fault {
            self.faults.push(told.to_string());
        }
    }

    /// The value of an expression in the page.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut told = self.call("Runtime.evaluate", params).await?;
        if told["exceptionDetails"].is_null() {
            return Ok(told["result"]["value"].take());
        }
        Err(Failure::new(format!("{expression}: {}", told["exceptionDetails"])))
    }

    /// Waits until an expression is true in the page.
    pub(crate) async fn wait_for(&mut self, expression: &str, limit: Duration) -> Result<()> {
        let limit = Limit::new(limit);
        // While a page is loaded there is none.
        while self.evaluate(expression).await.unwrap_or_default() != true {
            if limit.is_over() {
                let text = self.evaluate("document.body.innerText").await.unwrap_or_default();
                println!("the page says: {}", text.as_str().unwrap_or_default());
            }
            limit.pause(|| expression.to_owned()).await?;
        }
        Ok(())
    }

    /// Opens a page in a window.
    pub(crate) async fn open(&mut self, url: &str, window: Window) -> Result<()> {
        self.resize(window).await?;
        self.call("Page.navigate", json!({"url": url})).await?;
        Ok(())
    }

    /// Gives the page another window.
    pub(crate) async fn resize(&mut self, window: Window) -> Result<()> {
        let Window { width, height, scheme } = window;
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size).await?;
        // Colours are measured, not on their way.
        let features = json!([
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features})).await?;
        Ok(())
    }

    /// Types a text where the focus is.
    pub(crate) async fn type_text(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", json!({"text": text})).await?;
        Ok(())
    }

    /// Presses a key, named as in JavaScript's `key`.
    pub(crate) async fn press(&mut self, key: &str) -> Result<()> {
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "ArrowDown" => 40,
            _ => 0,
        };
        for kind in ["keyDown", "keyUp"] {
            let mut params = json!({"type": kind, "key": key, "windowsVirtualKeyCode": code});
            if kind == "keyDown" && key == "Enter" {
                params["text"] = "\r".into();
            }
            self.call("Input.dispatchKeyEvent", params).await?;
        }
        Ok(())
    }

    /// A picture of the page as PNG.
    pub(crate) async fn picture(&mut self) -> Result<Vec<u8>> {
        let told = self.call("Page.captureScreenshot", json!({"format": "png"})).await?;
        let text = told["data"].as_str().unwrap_or_default();
        BASE64_STANDARD.decode(text).map_err(|error| Failure::new(error.to_string()))
    }
}

/// Finds the port that the browser chose, and connects to its page.
async fn attach(profile: &Path) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>> {
    let limit = Limit::new(START_LIMIT);
    loop {
        let port = std::fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
        if let Some(port) = port.lines().next()
            && let Ok(pages) =
                Http::new(&format!("http://127.0.0.1:{port}"))?.must_get("/json/list").await
            && let Some(page) =
                pages.as_array().into_iter().flatten().find(|it| it["type"] == "page")
            && let Some(url) = page["webSocketDebuggerUrl"].as_str()
        {
            let connected = connect_async(url).await;
            let (socket, _) = connected.map_err(|error| Failure::new(format!("{url}: {error}")))?;
            return Ok(socket);
        }
        limit.pause(|| "a browser that can be driven".to_owned()).await?;
    }
}
