//! A guest's console, by virtctl.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::world::{LONG, World, eventually};

/// How long a guest may take to say something between two looks.
const LOOK: Duration = Duration::from_millis(300);

pub struct Console {
    child: Child,
    keys: Option<ChildStdin>,
    shown: Receiver<Vec<u8>>,
    text: String,
}

impl Console {
    /// Opens the console of a VM and waits until its guest asks for a login.
    pub fn open(world: &World, vm: &str) -> Self {
        Self::until_shown(world, vm, "login:")
    }

    /// Opens it once more, where somebody is logged in.
    pub fn again(world: &World, vm: &str) -> Self {
        Self::until_shown(world, vm, "# ")
    }

    fn until_shown(world: &World, vm: &str, prompt: &str) -> Self {
        let mut child = world
            .host
            .command(Path::new(env!("CARGO_BIN_EXE_holdfastd")).with_file_name("virtctl"))
            .arg("--standalone")
            .arg("--run")
            .arg(world.path("r"))
            .args(["console", vm])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let keys = child.stdin.take();
        let mut screen = child.stdout.take().unwrap();
        let (seen, shown) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(count) = screen.read(&mut buffer) {
                if count == 0 || seen.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut console = Self { child, keys, shown, text: String::new() };
        eventually(&format!("the guest says `{prompt}`"), LONG, || {
            console.say("\r");
            while let Ok(bytes) = console.shown.recv_timeout(LOOK) {
                console.text.push_str(&String::from_utf8_lossy(&bytes));
            }
            console.text.contains(prompt).then_some(())
        });
        console
    }

    /// Logs in to the test guest.
    pub fn log_in(&mut self) {
        self.say("root\r");
        self.until("assword");
        self.say("guest\r");
        self.run("true");
    }

    /// Runs a command in the guest's shell, which must succeed.
    pub fn run(&mut self, command: &str) {
        self.text.clear();
        // What is typed is echoed: the mark is not typed as it comes back.
        self.say(&format!("{command} && echo DO''NE || echo FAI''LED\r"));
        self.until("\nDONE");
    }

    fn say(&mut self, text: &str) {
        self.keys.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn until(&mut self, wanted: &str) {
        let end = Instant::now() + LONG;
        while !self.text.contains(wanted) {
            assert!(Instant::now() < end && !self.text.contains("\nFAILED"), "no `{wanted}` in {:?}", self.text);
            if let Ok(bytes) = self.shown.recv_timeout(LOOK) {
                self.text.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
    }

    /// Ends it as the end of its input does.
    pub fn close(mut self) {
        drop(self.keys.take());
        let status = eventually("the console ends with its input", LONG, || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}
