//! Proxies as Python writes them: `RebuildProxy(class, Token(typeid, address, id), 'pickle', {...})`.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::channel::connection::Address;
use crate::manager::remote_link::Key;
use crate::pickle::{Global, Object, Value};

/// The module of the standard library: both faces of this project answer to its name, too.
const MODULE: &str = "multiprocessing.managers";

/// Classes of proxies that are not made to measure, by the kind of their objects.
const CLASSES: [(&str, &str); 14] = [
    ("Event", "EventProxy"),
    ("Lock", "AcquirerProxy"),
    ("RLock", "AcquirerProxy"),
    ("Semaphore", "AcquirerProxy"),
    ("BoundedSemaphore", "AcquirerProxy"),
    ("Condition", "ConditionProxy"),
    ("Barrier", "BarrierProxy"),
    ("Pool", "PoolProxy"),
    ("list", "ListProxy"),
    ("dict", "DictProxy"),
    ("Value", "ValueProxy"),
    ("Array", "ArrayProxy"),
    ("Namespace", "NamespaceProxy"),
    ("Iterator", "IteratorProxy"),
];

/// Says which object of which server is meant.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) typeid: String,
    pub(super) address: Address,
    pub(super) id: String,
    /// The class of the proxy in Python, if that has said so.
    pub(super) class: Option<Global>,
    /// The names of the methods, if the server has told them.
    pub(super) exposed: Option<Value>,
}

impl Token {
    /// The pickle of a proxy in Python, with the key in it if it is for a process that is started.
    pub(super) fn to_proxy(&self, key: Option<&Key>) -> Value {
        let class = self.class.clone().unwrap_or_else(|| class_of(&self.typeid));
        let mut keywords = Vec::new();
        if class.name == "AutoProxy"
            && let Some(exposed) = &self.exposed
        {
            keywords.push(("exposed".into(), exposed.clone()));
        }
        if let Some(key) = key {
            keywords.push(("authkey".into(), Value::Bytes(key.bytes().to_vec())));
        }
        let arguments = vec![class.into(), self.to_value(), "pickle".into(), Value::Dict(keywords)];
        Object::call(MODULE, "RebuildProxy", arguments).into()
    }

    /// The pickle of a token in Python.
    pub(super) fn to_value(&self) -> Value {
        let address = address_to_value(&self.address);
        let state = vec![self.typeid.as_str().into(), address, self.id.as_str().into()];
        Object::instance(MODULE, "Token", Vec::new()).with_state(Value::Tuple(state)).into()
    }

    /// Reads the pickle of a token.
    pub(super) fn from_value(value: Value) -> Option<Self> {
        let Value::Object(object) = value else { return None };
        if global(&object.callable)?.name != "Token" {
            return None;
        }
        let parts = match object.state {
            Some(Value::Tuple(parts)) => parts,
            _ => object.arguments,
        };
        let [Value::Str(typeid), address, Value::Str(id)] = <[Value; 3]>::try_from(parts).ok()?
        else {
            return None;
        };
        let address = address_from_value(address)?;
        Some(Self { typeid, address, id, class: None, exposed: None })
    }

    /// Reads the pickle of a proxy, and the key that may be in it.
    pub(super) fn from_proxy(value: Value) -> Option<(Self, Option<Key>)> {
        let Value::Object(object) = value else { return None };
        if global(&object.callable)?.name != "RebuildProxy" {
            return None;
        }
        let [class, token, _serializer, Value::Dict(keywords)] =
            <[Value; 4]>::try_from(object.arguments).ok()?
        else {
            return None;
        };
        let mut token = Self::from_value(token)?;
        token.class = global(&class);
        let mut key = None;
        for (name, value) in keywords {
            match (name, value) {
                (Value::Str(name), Value::Bytes(bytes)) if name == "authkey" => {
                    key = Some(Key::new(bytes));
                }
                (Value::Str(name), exposed) if name == "exposed" => token.exposed = Some(exposed),
                _ => {}
            }
        }
        Some((token, key))
    }
}

fn class_of(typeid: &str) -> Global {
    let known = CLASSES.iter().find(|(kind, _)| *kind == typeid);
    Global::new(MODULE, known.map_or("AutoProxy", |(_, class)| class))
}

/// What a pickle names, also where it does so by a call of `getattr`. Both faces of this project
/// have what is in the standard library's module.
fn global(value: &Value) -> Option<Global> {
    let global = match value {
        Value::Global(global) => global.clone(),
        Value::Object(object) => match object.arguments.as_slice() {
            [Value::Object(module), Value::Str(name)]
                if object.class()?.is("builtins", "getattr") =>
            {
                match module.arguments.as_slice() {
                    [Value::Str(module)] => Global::new(module.as_str(), name.as_str()),
                    _ => return None,
                }
            }
            _ => return None,
        },
        _ => return None,
    };
    let ours = global.module == "procession.managers";
    Some(if ours { Global::new(MODULE, global.name) } else { global })
}

/// An address as Python has it.
pub(super) fn address_to_value(address: &Address) -> Value {
    match address {
        Address::Tcp(SocketAddr::V4(place)) => {
            let host = place.ip().to_string();
            Value::Tuple(vec![host.into(), i64::from(place.port()).into()])
        }
        Address::Tcp(SocketAddr::V6(place)) => {
            let numbers = [u32::from(place.port()), place.flowinfo(), place.scope_id()];
            let host = Value::from(place.ip().to_string());
            let numbers = numbers.into_iter().map(|number| i64::from(number).into());
            Value::Tuple(std::iter::once(host).chain(numbers).collect())
        }
        Address::Unix(path) => match path.to_str() {
            Some(path) => path.into(),
            None => Value::Bytes(path.as_os_str().as_bytes().to_vec()),
        },
        Address::Abstract(name) => Value::Bytes([b"\0", name.as_slice()].concat()),
        Address::Unnamed => "".into(),
    }
}

/// The address that Python means. Blocks while the host is looked up, if it is given by name.
fn address_from_value(value: Value) -> Option<Address> {
    let port = |number: i64| u16::try_from(number).ok();
    match value {
        Value::Tuple(parts) => match parts.as_slice() {
            [Value::Str(host), Value::Int(number)] => Address::tcp(host, port(*number)?).ok(),
            [Value::Str(host), Value::Int(number), Value::Int(flow), Value::Int(scope)] => {
                let IpAddr::V6(host) = host.parse().ok()? else { return None };
                let (flow, scope) = (u32::try_from(*flow).ok()?, u32::try_from(*scope).ok()?);
                let place = SocketAddrV6::new(host, port(*number)?, flow, scope);
                Some(Address::Tcp(place.into()))
            }
            _ => None,
        },
        Value::Str(text) => Some(named(text.into_bytes())),
        Value::Bytes(bytes) => Some(named(bytes)),
        _ => None,
    }
}

fn named(name: Vec<u8>) -> Address {
    match name.split_first() {
        Some((0, name)) => Address::Abstract(name.to_vec()),
        _ => Address::Unix(PathBuf::from(std::ffi::OsString::from_vec(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(typeid: &str, address: Address) -> Token {
        Token { typeid: typeid.into(), address, id: "7f00".into(), class: None, exposed: None }
    }

    #[test]
    fn proxies_of_every_address_come_back_as_they_were() {
        let addresses = [
            Address::Tcp("127.0.0.1:6000".parse().unwrap()),
            Address::Tcp("[::1]:6000".parse().unwrap()),
            Address::unix("/run/example"),
            Address::Abstract(b"example".to_vec()),
        ];
        for address in addresses {
            let sent = token("dict", address);
            let key = Key::new(*b"a key");
            let pickle = sent.to_proxy(Some(&key)).to_pickle().unwrap();
            let (came, with) = Token::from_proxy(Value::from_pickle(&pickle).unwrap()).unwrap();
            assert_eq!(came.class, Some(Global::new(MODULE, "DictProxy")));
            assert_eq!(Token { class: None, ..came }, sent);
            assert!(with == Some(key));
        }
    }

    #[test]
    fn proxies_of_this_projects_python_are_understood() {
        let call = |module: &str, name: &str, arguments| {
            Value::from(Object::call(module, name, arguments))
        };
        let by_name = |name: &str| {
            let module = call("importlib", "import_module", vec![MODULE.into()]);
            call("builtins", "getattr", vec![module, name.into()])
        };
        let place = Value::Tuple(vec!["127.0.0.1".into(), 7.into()]);
        let state = vec!["queue".into(), place, "ab".into()];
        let made = |class: Value, token: Value| {
            let keywords = Value::Dict(vec![("exposed".into(), Value::Tuple(vec!["put".into()]))]);
            vec![class, token, "pickle".into(), keywords]
        };
        let mut token = Object::call("", "", state.clone());
        token.callable = by_name("Token");
        let mut plain = Object::call("", "", made(by_name("AutoProxy"), token.into()));
        plain.callable = by_name("RebuildProxy");
        let own = call("procession.managers", "Token", state);
        let class = Global::new("procession.managers", "AutoProxy").into();
        let ours = call("procession.managers", "RebuildProxy", made(class, own));
        for value in [Value::from(plain), ours] {
            let (token, key) = Token::from_proxy(value).unwrap();
            assert!(key.is_none());
            assert_eq!(token.class, Some(Global::new(MODULE, "AutoProxy")));
            assert_eq!((token.typeid.as_str(), token.id.as_str()), ("queue", "ab"));
            assert_eq!(token.exposed, Some(Value::Tuple(vec!["put".into()])));
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused() {
        let others = [
            Value::None,
            Object::call("builtins", "ValueError", vec![1.into()]).into(),
            Object::call(MODULE, "RebuildProxy", vec![1.into()]).into(),
        ];
        assert!(others.into_iter().all(|other| Token::from_proxy(other).is_none()));
    }
}
