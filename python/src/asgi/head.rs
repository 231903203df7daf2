//! Reading the application's messages: status, headers and bodies, with every mistake told by name.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString, PyTuple};

/// From here on a body's bytes stay where Python has them.
const BY_REFERENCE: usize = 64 * 1024;

/// The message as the dictionary that it has to be.
pub(super) fn message<'a, 'py>(message: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyDict>> {
    message
        .cast::<PyDict>()
        .map_err(|_| PyTypeError::new_err(format!("a message is a dict, not {}", type_name(message))))
}

/// What the message says that it is.
pub(super) fn kind<'py>(message: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyString>> {
    match message.get_item(intern!(message.py(), "type"))? {
        Some(kind) => kind.cast_into::<PyString>().map_err(|error| {
            let kind = type_name(&error.into_inner());
            PyTypeError::new_err(format!("the type of a message is a str, not {kind}"))
        }),
        None => Err(PyValueError::new_err("a message without a type")),
    }
}

/// A flag; false if it is absent.
pub(super) fn flag(message: &Bound<'_, PyDict>, name: &Bound<'_, PyString>) -> PyResult<bool> {
    match message.get_item(name)? {
        Some(value) => value.is_truthy(),
        None => Ok(false),
    }
}

/// The head in a message `http.response.start`.
pub(super) fn head(message: &Bound<'_, PyDict>) -> PyResult<Response<()>> {
    let py = message.py();
    let mut head = Response::new(());
    let Some(status) = message.get_item(intern!(py, "status"))? else {
        return Err(PyValueError::new_err("http.response.start without a status"));
    };
    *head.status_mut() = self::status(&status)?;
    if let Some(headers) = message.get_item(intern!(py, "headers"))? {
        *head.headers_mut() = self::headers(&headers)?;
    }
    drop_hop_by_hop(&mut head);
    Ok(head)
}

fn status(status: &Bound<'_, PyAny>) -> PyResult<StatusCode> {
    // `http.HTTPStatus` is an int too.
    if !status.is_instance_of::<PyInt>() {
        let kind = type_name(status);
        return Err(PyTypeError::new_err(format!("the status is an int, not {kind}")));
    }
    let code = status.extract::<u16>().ok().and_then(|code| StatusCode::from_u16(code).ok());
    match code {
        Some(code) if !code.is_informational() => Ok(code),
        _ => Err(PyValueError::new_err(format!("{status} is not the status of a response"))),
    }
}

/// Headers: an iterable of pairs of bytes.
pub(super) fn headers(value: &Bound<'_, PyAny>) -> PyResult<HeaderMap> {
    let mut map = HeaderMap::new();
    if let Ok(list) = value.cast_exact::<PyList>() {
        map.reserve(list.len());
        for pair in list {
            add(&mut map, &pair)?;
        }
    } else {
        for pair in value.try_iter()? {
            add(&mut map, &pair?)?;
        }
    }
    Ok(map)
}

fn add(map: &mut HeaderMap, pair: &Bound<'_, PyAny>) -> PyResult<()> {
    let (name, value) = if let Ok(pair) = pair.cast_exact::<PyTuple>()
        && pair.len() == 2
    {
        (pair.get_item(0)?, pair.get_item(1)?)
    } else {
        pair.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>().or_else(|_| {
            // A list, as the specification has it.
            let pair = pair.try_iter()?.collect::<PyResult<Vec<_>>>()?;
            <[_; 2]>::try_from(pair)
                .map(|[name, value]| (name, value))
                .map_err(|_| PyValueError::new_err("a header is a pair of a name and a value"))
        })?
    };
    let name = HeaderName::from_bytes(header_bytes(&name, "name")?)
        .map_err(|_| PyValueError::new_err(format!("invalid header name {name}")))?;
    let value = HeaderValue::from_bytes(header_bytes(&value, "value")?)
        .map_err(|_| PyValueError::new_err(format!("invalid value of the header {name}: {value}")))?;
    map.append(name, value);
    Ok(())
}

fn header_bytes<'a>(part: &'a Bound<'_, PyAny>, which: &str) -> PyResult<&'a [u8]> {
    part.cast::<PyBytes>().map(PyBytesMethods::as_bytes).map_err(|_| {
        PyTypeError::new_err(format!("the {which} of a header is bytes, not {}", type_name(part)))
    })
}

/// The bytes under `name`; empty if they are absent.
pub(super) fn body(message: &Bound<'_, PyDict>, name: &Bound<'_, PyString>) -> PyResult<Bytes> {
    match message.get_item(name)? {
        Some(body) => bytes(&body),
        None => Ok(Bytes::new()),
    }
}

/// Bytes in whatever form Python has them.
pub(super) fn bytes(body: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    let py = body.py();
    if let Ok(bytes) = body.cast::<PyBytes>() {
        let slice = bytes.as_bytes();
        if slice.len() < BY_REFERENCE {
            return Ok(Bytes::copy_from_slice(slice));
        }
        return Ok(Bytes::from_owner(PyBackedBytes::from(bytes.clone())));
    }
    // A bytearray may change while it is on its way, a memoryview may be of anything.
    let bytes = body
        .call_method0(intern!(py, "tobytes"))
        .or_else(|_| {
            let is_bytearray = body.is_instance_of::<pyo3::types::PyByteArray>();
            if is_bytearray {
                return py.get_type::<PyBytes>().call1((body,));
            }
            Err(PyTypeError::new_err(format!("a body is bytes, not {}", type_name(body))))
        })?
        .cast_into::<PyBytes>()?;
    Ok(Bytes::from_owner(PyBackedBytes::from(bytes)))
}

/// Drops the headers that are the connection's and not the application's (RFC 9110, section 7.6.1): the server sets its own.
fn drop_hop_by_hop(head: &mut Response<()>) {
    const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

    // The demand for an upgrade is made of these headers.
    let upgrades = head.status() == StatusCode::UPGRADE_REQUIRED;
    let headers = head.headers_mut();
    if upgrades || headers.is_empty() {
        return;
    }
    if headers.contains_key(CONNECTION) {
        let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let named = named.flat_map(|value| value.split(','));
        let named: Vec<_> = named.filter_map(|name| HeaderName::try_from(name.trim()).ok()).collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

/// The length that a head declares.
pub(super) fn declared_length(headers: &HeaderMap) -> PyResult<Option<u64>> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match text.and_then(|text| text.parse().ok()) {
        Some(length) if values.next().is_none() => Ok(Some(length)),
        _ => Err(PyValueError::new_err(format!("the Content-Length is not one number: {value:?}"))),
    }
}

/// Whether a response has no body (RFC 9110, section 6.4.1).
pub(super) fn is_bodiless(method: &Method, status: StatusCode) -> bool {
    method == Method::HEAD || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// Gives the head of a response without a body the length that it should declare: none, or what GET would send, where that is known.
pub(super) fn fit_length(method: &Method, head: &mut Response<()>, length: Option<usize>) {
    if head.status() == StatusCode::NO_CONTENT {
        head.headers_mut().remove(CONTENT_LENGTH);
    } else if method == Method::HEAD
        && head.status() != StatusCode::NOT_MODIFIED
        && let Some(length) = length.filter(|length| *length > 0)
        && !head.headers().contains_key(CONTENT_LENGTH)
    {
        head.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
}

pub(super) fn type_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "something".to_owned(), |name| name.to_string())
}
