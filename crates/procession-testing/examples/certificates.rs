//! Writes the certificates that the tests in Python use, into the folder that is named.
//!
//! They are valid for a century. `cargo run -p procession-testing --example certificates -- FOLDER`

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("name the folder to write to")?);
    fs::create_dir_all(&folder)?;
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let ca = issuer(&folder, "ca")?;
    sign(&folder, "server", CertificateParams::new(names.clone())?, &ca)?;
    sign(&folder, "client", CertificateParams::new(["a client".to_owned()])?, &ca)?;
    let mut expired = CertificateParams::new(names)?;
    expired.not_before = date_time_ymd(2000, 1, 1);
    expired.not_after = date_time_ymd(2001, 1, 1);
    write(&folder, "expired", expired, &ca)?;
    issuer(&folder, "stranger")?;
    Ok(())
}

fn for_a_century(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2126, 1, 1);
}

fn issuer(folder: &Path, name: &str) -> Result<CertifiedIssuer<'static, KeyPair>, Box<dyn Error>> {
    let mut params = CertificateParams::new(Vec::new())?;
    for_a_century(&mut params);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, format!("procession tests, {name}"));
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    fs::write(folder.join(format!("{name}.pem")), issuer.pem())?;
    Ok(issuer)
}

fn sign(
    folder: &Path,
    name: &str,
    mut params: CertificateParams,
    issuer: &CertifiedIssuer<'static, KeyPair>,
) -> Result<(), Box<dyn Error>> {
    for_a_century(&mut params);
    write(folder, name, params, issuer)
}

fn write(
    folder: &Path,
    name: &str,
    params: CertificateParams,
    issuer: &CertifiedIssuer<'static, KeyPair>,
) -> Result<(), Box<dyn Error>> {
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    fs::write(folder.join(format!("{name}.pem")), certificate.pem())?;
    fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    Ok(())
}
