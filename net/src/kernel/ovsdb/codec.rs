//! JSON-RPC 1.0 over a stream (RFC 7047, section 4): one JSON object after the other, with nothing in between.

use std::io;

use serde_json::Value;
use tokio_util::bytes::{Buf, BufMut, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// The first answer to a monitor holds all that is monitored; a node with thousands of ports has a few MiB of it.
const LARGEST: usize = 256 * 1024 * 1024;

/// Finds where one object ends and the next begins, looking at each byte once.
#[derive(Debug, Default)]
pub struct JsonStream {
    /// Bytes of the buffer that were looked at.
    seen: usize,
    /// Braces and brackets that are open there.
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl JsonStream {
    /// Length of the first whole object in the buffer, once there is one.
    fn end(&mut self, buffer: &[u8]) -> Option<usize> {
        for byte in buffer.get(self.seen..)? {
            self.seen += 1;
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(self.seen);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

impl Decoder for JsonStream {
    type Item = Value;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Value>> {
        let Some(end) = self.end(buffer) else {
            let too_long = buffer.len() > LARGEST;
            return if too_long { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(None) };
        };
        *self = Self::default();
        let value = serde_json::from_slice(&buffer[..end])?;
        buffer.advance(end);
        Ok(Some(value))
    }
}

impl Encoder<Value> for JsonStream {
    type Error = io::Error;

    fn encode(&mut self, value: Value, buffer: &mut BytesMut) -> io::Result<()> {
        Ok(serde_json::to_writer(buffer.writer(), &value)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_objects_wherever_the_stream_is_cut() {
        let text = r#"{"a":"}\"{","b":[1,{"c":2}]}{"d":"\\"}  {"e":[]}"#;
        for cut in 0..=text.len() {
            let mut stream = JsonStream::default();
            let mut buffer = BytesMut::new();
            let mut found = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                buffer.extend_from_slice(part.as_bytes());
                while let Some(value) = stream.decode(&mut buffer).unwrap() {
                    found.push(value.to_string());
                }
            }
            assert_eq!(found, [r#"{"a":"}\"{","b":[1,{"c":2}]}"#, r#"{"d":"\\"}"#, r#"{"e":[]}"#], "cut at {cut}");
        }
    }

    #[test]
    fn refuses_what_is_no_json() {
        let mut buffer = BytesMut::from(&b"{nonsense}"[..]);
        assert!(JsonStream::default().decode(&mut buffer).is_err());
    }
}
