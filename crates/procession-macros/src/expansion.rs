//! The code that is made of the methods.

use proc_macro2::{Literal, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Error, Ident, ItemImpl, Result, Type};

use crate::methods::{Argument, Method, Output, methods_of, span_of};

/// The block, and what makes its methods ones for clients.
pub(crate) fn expand(attribute: TokenStream, mut block: ItemImpl) -> Result<TokenStream> {
    if !attribute.is_empty() {
        let text = "`#[shared]` stands alone before the block; options stand before the methods";
        return Err(Error::new_spanned(attribute, text));
    }
    let name = check_block(&block)?;
    let methods = methods_of(&mut block)?;
    let own_type = &block.self_ty;
    let shareable = shareable(own_type, &name, &methods);
    let proxy = proxy(&name, &methods);
    Ok(quote! { #block #shareable #proxy })
}

/// The name of the type that the block is for.
fn check_block(block: &ItemImpl) -> Result<Ident> {
    if let Some((path, _)) = &block.trait_ {
        let text = "`#[shared]` stands before the methods of a type, not those of a trait";
        return Err(Error::new_spanned(path, text));
    }
    if let Some(parameter) = block.generics.params.first() {
        let text =
            "a type whose methods are shared is made by its name alone: it cannot be generic";
        return Err(Error::new_spanned(parameter, text));
    }
    let name = match &*block.self_ty {
        Type::Path(path) => path.path.segments.last().filter(|last| last.arguments.is_empty()),
        _ => None,
    };
    let text = "`#[shared]` stands before the methods of a type that has a name, and no parameters";
    name.map(|last| last.ident.clone()).ok_or_else(|| Error::new_spanned(&block.self_ty, text))
}

fn proxy_name(name: &Ident) -> Ident {
    format_ident!("{name}Proxy")
}

/// The name of a method or an argument as a text, without what makes a keyword a name.
fn text_of(name: &Ident) -> Literal {
    let text = name.to_string();
    Literal::string(text.strip_prefix("r#").unwrap_or(&text))
}

fn shareable(own_type: &Type, name: &Ident, methods: &[Method]) -> TokenStream {
    let (proxy, text) = (proxy_name(name), text_of(name));
    let names = methods.iter().map(|method| {
        let (conditions, name) = (&method.conditions, text_of(&method.name));
        quote! { #(#conditions)* #name }
    });
    let arms = methods.iter().map(|method| arm(own_type, method));
    quote! {
        impl ::procession::manager::Shareable for #own_type {
            type Proxy = #proxy;
            const NAME: &'static str = #text;
            const METHODS: &'static [&'static str] = &[#(#names),*];

            fn call(
                instance: &::procession::manager::Instance<Self>,
                call: &mut ::procession::manager::Invocation<'_>,
            ) -> ::procession::manager::Answer {
                match call.method() {
                    #(#arms)*
                    _ => ::core::result::Result::Err(call.unknown_method()),
                }
            }
        }
    }
}

/// Carries out one method.
fn arm(own_type: &Type, method: &Method) -> TokenStream {
    let (conditions, name, text) = (&method.conditions, &method.name, text_of(&method.name));
    let places: Vec<_> =
        (0..method.arguments.len()).map(|place| format_ident!("argument_{place}")).collect();
    let names = method.arguments.iter().map(|argument| text_of(&argument.name));
    let takes = method.arguments.iter().zip(&places).map(|(argument, place)| {
        let of = &argument.of;
        // An error about the type is shown where the type stands.
        let take = if argument.is_optional {
            quote_spanned! { span_of(of) =>
                bound.next_if_given::<#of>()?.unwrap_or(::core::option::Option::None)
            }
        } else {
            quote_spanned! { span_of(of) => bound.next::<#of>()? }
        };
        quote! { let #place: #of = #take; }
    });
    let bound = if places.is_empty() { quote!(let _) } else { quote!(let mut bound) };
    let run = if method.changes { quote!(change) } else { quote!(inspect) };
    let quick = method.quick;
    let result = match &method.output {
        Output::Value(of) => quote_spanned! { span_of(of) =>
            ::procession::manager::Outcome::of::<#of>(&result)
        },
        Output::Object(of) => quote_spanned! { span_of(of) =>
            ::core::result::Result::Ok(::procession::manager::Outcome::instance::<#of>(result))
        },
        Output::Result(types) => {
            let [value, error] = &**types;
            let value = quote_spanned! { span_of(value) =>
                ::procession::manager::Outcome::of::<#value>(&value)
            };
            let error = quote_spanned! { span_of(error) =>
                ::procession::manager::Raised::failed::<#error>(&error)
            };
            quote! {
                match result {
                    ::core::result::Result::Ok(value) => #value,
                    ::core::result::Result::Err(error) => ::core::result::Result::Err(#error),
                }
            }
        }
    };
    quote! {
        #(#conditions)*
        #text => {
            #bound = call.bind(&[#(#names),*])?;
            #(#takes)*
            let result = instance.#run(call, #quick, move |object| {
                <#own_type>::#name(object, #(#places),*)
            })?;
            #result
        }
    }
}

fn proxy(name: &Ident, methods: &[Method]) -> TokenStream {
    let proxy = proxy_name(name);
    let summary = format!(
        "Stands for a [`{name}`] in a manager, which may be in another process or on another \
         machine. Its methods are those of the object, and block until that has answered."
    );
    let methods = methods.iter().map(proxy_method);
    let proxy_text = text_of(&proxy);
    quote! {
        #[doc = #summary]
        #[derive(Clone)]
        #[allow(unreachable_pub)]
        pub struct #proxy {
            proxy: ::procession::manager::Proxy,
        }

        #[allow(dead_code, unreachable_pub, clippy::too_many_arguments)]
        impl #proxy {
            /// The proxy beneath, for calls by the name of a method.
            pub fn proxy(&self) -> &::procession::manager::Proxy {
                &self.proxy
            }

            #(#methods)*
        }

        impl ::core::convert::From<::procession::manager::Proxy> for #proxy {
            fn from(proxy: ::procession::manager::Proxy) -> Self {
                Self { proxy }
            }
        }

        impl ::core::fmt::Debug for #proxy {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_tuple(#proxy_text).field(&self.proxy).finish()
            }
        }

        impl ::procession::manager::serde::Serialize for #proxy {
            fn serialize<S: ::procession::manager::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::core::result::Result<S::Ok, S::Error> {
                ::procession::manager::serde::Serialize::serialize(&self.proxy, serializer)
            }
        }

        impl<'de> ::procession::manager::serde::Deserialize<'de> for #proxy {
            fn deserialize<D: ::procession::manager::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::core::result::Result<Self, D::Error> {
                let proxy = ::procession::manager::serde::Deserialize::deserialize(deserializer)?;
                ::core::result::Result::Ok(Self { proxy })
            }
        }
    }
}

/// What the method of the proxy returns for a `Result`.
fn ok_and_error([value, error]: &[Type; 2]) -> TokenStream {
    quote!(#value, ::procession::manager::ProxyError<#error>)
}

/// Calls a method that returns a `Result`. An error about one of its types is shown where that stands.
fn call_result([value, error]: &[Type; 2], text: &Literal, arguments: &TokenStream) -> TokenStream {
    let value = quote_spanned!(span_of(value) => #value);
    quote_spanned!(span_of(error) => self.proxy.call_result::<_, #value, #error>(#text, #arguments))
}

fn proxy_method(method: &Method) -> TokenStream {
    let Method { attributes, conditions, visibility, name, arguments, output, .. } = method;
    let text = text_of(name);
    let names: Vec<_> = arguments.iter().map(|argument| &argument.name).collect();
    let types: Vec<_> = arguments.iter().map(|argument| &argument.of).collect();
    let checks = arguments.iter().map(|Argument { name, of, .. }| {
        // An error about the type is shown where the type stands.
        quote_spanned! { span_of(of) => let #name = ::procession::manager::argument::<#of>(#name); }
    });
    let arguments = if names.is_empty() { quote!(()) } else { quote!((#(#names,)*)) };
    let (returned, body, errors) = match output {
        Output::Value(of) => (
            quote!(#of, ::procession::manager::CallFailed),
            quote_spanned!(span_of(of) => self.proxy.call::<_, #of>(#text, #arguments)),
            "[`CallFailed`](::procession::manager::CallFailed) when the call did not succeed.",
        ),
        Output::Result(types) => (
            ok_and_error(types),
            call_result(types, &text, &arguments),
            "[`ProxyError::Failed`](::procession::manager::ProxyError::Failed) with what the method \
             returned as its error; \
             [`ProxyError::Call`](::procession::manager::ProxyError::Call) when the call did not \
             succeed.",
        ),
        Output::Object(of) => (
            quote! {
                <#of as ::procession::manager::Shareable>::Proxy, ::procession::manager::CallFailed
            },
            quote!(self.proxy.call_proxy(#text, #arguments).map(::core::convert::From::from)),
            "[`CallFailed`](::procession::manager::CallFailed) when the call did not succeed.",
        ),
    };
    quote! {
        #(#conditions)*
        #(#attributes)*
        ///
        /// # Errors
        ///
        #[doc = #errors]
        #visibility fn #name(&self, #(#names: #types),*) -> ::core::result::Result<#returned> {
            #(#checks)*
            #body
        }
    }
}
