//! A strict reader of CGI responses ([RFC 3875, section 6](https://www.rfc-editor.org/rfc/rfc3875#section-6)): what it does not take, some host would read in its own way.

/// A response as a host reads it.
pub(crate) struct Parsed<'a> {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'a str, &'a [u8])>,
    pub(crate) body: &'a [u8],
}

impl<'a> Parsed<'a> {
    /// Reads all of an output.
    pub(crate) fn of(output: &'a [u8]) -> Self {
        Self::read(output).unwrap_or_else(|what| panic!("{what}: {}", output.escape_ascii()))
    }

    fn read(output: &'a [u8]) -> Result<Self, &'static str> {
        let (first, mut rest) = line(output)?;
        let status = first.strip_prefix(b"Status: ").ok_or("the status comes first")?;
        let (code, reason) = status.split_at_checked(4).ok_or("a status has three digits and a reason")?;
        let code = code.strip_suffix(b" ").filter(|code| code.iter().all(u8::is_ascii_digit));
        let code =
            std::str::from_utf8(code.ok_or("a status is a number")?).map_err(|_| "a status is text")?;
        if !reason.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err("a reason is text");
        }
        let mut headers = Vec::new();
        loop {
            let (header, next) = line(rest)?;
            rest = next;
            if header.is_empty() {
                break;
            }
            let colon = header.windows(2).position(|bytes| bytes == b": ").ok_or("a header has a colon")?;
            let name = std::str::from_utf8(&header[..colon]).map_err(|_| "a name is text")?;
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err("a name is a token");
            }
            if name.eq_ignore_ascii_case("status") {
                return Err("there is one status");
            }
            headers.push((name, &header[colon + 2..]));
        }
        let status = code.parse().map_err(|_| "a status is a number")?;
        Ok(Self { status, headers, body: rest })
    }

    /// The values of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&'a [u8]> {
        self.headers.iter().filter(|(other, _)| *other == name).map(|(_, value)| *value).collect()
    }
}

/// A line that ends as lines do, with nothing in it that some host takes for an end.
fn line(bytes: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let end = bytes.windows(2).position(|bytes| bytes == b"\r\n").ok_or("a line has an end")?;
    let (line, rest) = (&bytes[..end], &bytes[end + 2..]);
    if line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err("a line is one line");
    }
    Ok((line, rest))
}

/// RFC 9110, section 5.6.2; the names of ours are in lower case.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
