// Node 20 is supported by none of the packages' dependencies without this function of the language.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new this((onValue, onError) => {
    resolve = onValue
    reject = onError
  })
  return { promise, resolve, reject }
}
