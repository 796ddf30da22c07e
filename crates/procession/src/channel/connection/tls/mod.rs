//! TLS for connections: who must show which certificate, and what can go wrong.
//!
//! | file        | what is in it                                                  |
//! |-------------|----------------------------------------------------------------|
//! | `mod`       | what users describe, and why there is no trust                 |
//! | `handshake` | how two ends come to trust each other                          |
//! | `tunnel`    | one encrypted socket and the plain one that it stands behind   |
//! | `pump`      | the thread that carries bytes between the two                  |
//!
//! Everything in this crate that sends messages does so through a descriptor. So whoever uses TLS
//! holds one end of a pair of plain sockets, and a thread of the process carries what goes through
//! it: see `pump` for what becomes of that in a fork and at the end of the process.

mod handshake;
mod pump;
mod tunnel;

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, client, crypto};

pub(crate) use self::handshake::TlsHandshake;
pub(crate) use self::pump::finish_at_end;
pub use self::pump::finish_tunnels;
pub(super) use self::pump::{PausedPump, forget, pause};

/// Which certificate this end shows, and whom it trusts.
///
/// Versions before TLS 1.3 are not spoken. The key of a connection, if there is one, is proved and
/// checked as without TLS, but inside of it.
///
/// With TLS, a process has one thread that encrypts and decrypts for all its connections. The child
/// of a fork may go on with the connections it has inherited for as long as the parent lives, as
/// the parent's thread carries them. What was sent is on its way when the process ends by itself;
/// if it is killed, what the thread had not taken yet is lost.
///
/// # Examples
///
/// ```no_run
/// use procession::channel::connection::{Address, Client, Listener, Tls};
///
/// let (chain, key) = (std::fs::read("server.pem")?, std::fs::read("server.key")?);
/// let listener = Listener::builder(Address::tcp("", 7777)?)
///     .tls(Tls::server(&chain, &key)?)
///     .key("a key")
///     .bind()?;
///
/// let tls = Tls::client(&std::fs::read("ca.pem")?)?.server_name("example.org")?;
/// let client = Client::new(Address::tcp("example.org", 7777)?).tls(tls).key("a key");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Tls {
    side: Side,
    /// Who the listener must be; if nothing is said, the address that is connected with.
    name: Option<ServerName<'static>>,
}

#[derive(Clone)]
enum Side {
    Server { shown: Arc<Shown>, config: Arc<ServerConfig> },
    Client { trusted: Arc<RootCertStore>, config: Arc<ClientConfig> },
}

/// What one end shows to the other.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Tls {
    /// Describes the end that listens. It shows the first certificate of `chain`, which the others,
    /// if there are any, lead from to one that clients trust. Both are texts in the form PEM.
    ///
    /// # Errors
    ///
    /// [`TlsError::BadCertificate`], [`TlsError::BadKey`].
    pub fn server(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let shown = Arc::new(Shown::read(chain, key)?);
        let config = server_config(&shown, None)?;
        Ok(Self { side: Side::Server { shown, config }, name: None })
    }

    /// Describes the end that connects. It trusts listeners whose certificate one of these has
    /// signed, or is itself one of these.
    ///
    /// # Errors
    ///
    /// [`TlsError::BadCertificate`].
    pub fn client(trusted: &[u8]) -> Result<Self, TlsError> {
        let trusted = Arc::new(roots(trusted)?);
        let config = client_config(&trusted, None)?;
        Ok(Self { side: Side::Client { trusted, config }, name: None })
    }

    /// Lets the end that connects show a certificate if it is asked for one.
    ///
    /// # Errors
    ///
    /// [`TlsError::BadCertificate`], [`TlsError::BadKey`]; [`TlsError::WrongSide`] for a listener,
    /// which has been given one already.
    pub fn client_certificate(mut self, chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let Side::Client { trusted, config } = &mut self.side else {
            return Err(TlsError::WrongSide);
        };
        *config = client_config(trusted, Some(&Shown::read(chain, key)?))?;
        Ok(self)
    }

    /// Lets the end that listens turn away clients without a certificate that one of `trusted` has
    /// signed.
    ///
    /// # Errors
    ///
    /// [`TlsError::BadCertificate`]; [`TlsError::WrongSide`] for a client.
    pub fn require_certificate(mut self, trusted: &[u8]) -> Result<Self, TlsError> {
        let Side::Server { shown, config } = &mut self.side else {
            return Err(TlsError::WrongSide);
        };
        *config = server_config(shown, Some(roots(trusted)?))?;
        Ok(self)
    }

    /// Sets the name, or the number of an address, that must be in the listener's certificate. If
    /// it is not called, that is the number of the address that is connected with.
    ///
    /// # Errors
    ///
    /// [`TlsError::NoName`] when this is no name of a host.
    pub fn server_name(mut self, name: &str) -> Result<Self, TlsError> {
        let parsed = ServerName::try_from(name.to_owned());
        self.name = Some(parsed.map_err(|_| TlsError::NoName { name: name.to_owned() })?);
        Ok(self)
    }

    /// Whether a listener can use it.
    pub(super) fn check_server(&self) -> Result<(), TlsError> {
        match self.side {
            Side::Server { .. } => Ok(()),
            Side::Client { .. } => Err(TlsError::WrongSide),
        }
    }

    /// Whether a client can use it.
    pub(super) fn check_client(&self) -> Result<(), TlsError> {
        match self.side {
            Side::Server { .. } => Err(TlsError::WrongSide),
            Side::Client { .. } => Ok(()),
        }
    }
}

impl Shown {
    fn read(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| TlsError::BadKey { why: error.to_string() })?;
        Ok(Self { chain: certificates(chain)?, key })
    }
}

fn bad_certificate(error: &impl fmt::Display) -> TlsError {
    TlsError::BadCertificate { why: error.to_string() }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| bad_certificate(&error))?;
    if found.is_empty() {
        return Err(bad_certificate(&"there is none in the text, which must be in the form PEM"));
    }
    Ok(found)
}

fn roots(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| bad_certificate(&error))?;
    }
    Ok(roots)
}

fn provider() -> Arc<crypto::CryptoProvider> {
    static PROVIDER: OnceLock<Arc<crypto::CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(crypto::ring::default_provider())).clone()
}

fn server_config(
    shown: &Shown,
    clients: Option<RootCertStore>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::BadKey { why: error.to_string() })?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(roots) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                .build()
                .map_err(|error| bad_certificate(&error))?,
        ),
    };
    let mut config = builder
        .with_single_cert(shown.chain.clone(), shown.key.clone_key())
        .map_err(|error| TlsError::BadKey { why: error.to_string() })?;
    // Connections last, so that there is nothing to resume.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client_config(
    trusted: &Arc<RootCertStore>,
    shown: Option<&Shown>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let bad_key = |error: rustls::Error| TlsError::BadKey { why: error.to_string() };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(bad_key)?
        .with_root_certificates(trusted.clone());
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(shown) => builder
            .with_client_auth_cert(shown.chain.clone(), shown.key.clone_key())
            .map_err(bad_key)?,
    };
    config.resumption = client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Without what is secret.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Server { .. } => "server",
            Side::Client { .. } => "client",
        };
        f.debug_struct("Tls").field("side", &side).field("name", &self.name).finish()
    }
}

/// Why there is no trust by TLS, or no more.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsError {
    /// A certificate that was given cannot be used.
    BadCertificate {
        /// What is wrong with it.
        why: String,
    },
    /// A private key that was given cannot be used, or does not belong to the certificate.
    BadKey {
        /// What is wrong with it.
        why: String,
    },
    /// What describes a listener was given to a client, or the other way round.
    WrongSide,
    /// This can be no host's name, or nothing was said of who the listener must be, and its address
    /// does not tell.
    NoName {
        /// The name.
        name: String,
    },
    /// The other end does not speak TLS.
    NotSpoken,
    /// Nobody whom this end was told to trust has signed the other end's certificate.
    UnknownIssuer,
    /// The other end's certificate is somebody else's.
    WrongName {
        /// Who it was to be.
        expected: String,
    },
    /// The other end's certificate is not valid any more.
    Expired,
    /// The other end's certificate is not valid yet.
    NotYetValid,
    /// The other end has shown no certificate.
    NoCertificate,
    /// The other end has refused this one.
    Refused {
        /// The reason, in the words of the protocol.
        why: String,
    },
    /// The connection was cut: the other end died, or somebody between the two has ended it. The
    /// last that was sent may be missing.
    Cut,
    /// What came cannot be deciphered, or is against the rules.
    Broken {
        /// What is wrong with it.
        why: String,
    },
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadCertificate { why } => write!(f, "the certificate cannot be used: {why}"),
            Self::BadKey { why } => write!(f, "the private key cannot be used: {why}"),
            Self::WrongSide => f.write_str(
                "a listener needs TLS with a certificate of its own, a client TLS with those of \
                 whom it trusts",
            ),
            Self::NoName { name } => write!(
                f,
                "{name:?} is no name of a host that could be in a certificate; say by the server \
                 name who must listen there"
            ),
            Self::NotSpoken => f.write_str("the other end does not speak TLS"),
            Self::UnknownIssuer => f.write_str(
                "nobody whom this end trusts has signed the certificate of the other end",
            ),
            Self::WrongName { expected } => {
                write!(f, "the certificate of the other end is not one of {expected}")
            }
            Self::Expired => f.write_str("the certificate of the other end has expired"),
            Self::NotYetValid => f.write_str("the certificate of the other end is not valid yet"),
            Self::NoCertificate => f.write_str("the other end has shown no certificate"),
            Self::Refused { why } => write!(f, "the other end refuses the connection: {why}"),
            Self::Cut => f.write_str(
                "the encrypted connection was cut without a farewell: the other end died, or \
                 somebody in between has ended it",
            ),
            Self::Broken { why } => write!(f, "the encrypted connection is broken: {why}"),
        }
    }
}

impl std::error::Error for TlsError {}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        use rustls::{CertificateError as Wrong, Error, InvalidMessage};
        match error {
            Error::InvalidCertificate(wrong) => match wrong {
                Wrong::UnknownIssuer => Self::UnknownIssuer,
                Wrong::Expired | Wrong::ExpiredContext { .. } => Self::Expired,
                Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => Self::NotYetValid,
                Wrong::NotValidForNameContext { expected, .. } => {
                    Self::WrongName { expected: expected.to_str().into_owned() }
                }
                other => Self::BadCertificate { why: other.to_string() },
            },
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::AlertReceived(alert) => Self::Refused { why: words(alert) },
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Self::NotSpoken,
            other => Self::Broken { why: other.to_string() },
        }
    }
}

/// What the other end complains of.
fn words(alert: rustls::AlertDescription) -> String {
    use rustls::AlertDescription as Alert;
    let text = match alert {
        Alert::UnknownCA => "it trusts nobody who has signed this end's certificate",
        Alert::CertificateRequired => "it wants a certificate of this end",
        Alert::CertificateExpired => "this end's certificate is not valid at this time",
        Alert::BadCertificate | Alert::CertificateUnknown | Alert::UnsupportedCertificate => {
            "it does not take this end's certificate"
        }
        Alert::ProtocolVersion => "it speaks another version of TLS",
        Alert::HandshakeFailure => "there is nothing that both ends accept",
        other => return format!("{other:?}"),
    };
    text.to_owned()
}

/// Why a tunnel broke, for whoever uses the plain end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cause(Arc<OnceLock<TlsError>>);

impl Cause {
    pub(crate) fn get(&self) -> Option<TlsError> {
        self.0.get().cloned()
    }

    fn set(&self, error: TlsError) {
        // The first one is the cause, the others follow from it.
        let _ = self.0.set(error);
    }
}
