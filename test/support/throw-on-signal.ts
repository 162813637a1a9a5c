/**
 * Preloaded into a server: SIGUSR2 makes two mistakes there that nobody catches, which nothing that
 * a client can do should.
 */
process.on("SIGUSR2", () => {
  void Promise.reject(new Error("a rejection on purpose"));
  setTimeout(() => {
    throw new Error("an exception on purpose");
  }, 0);
});
