// Exports the CommonJS build under ES module syntax. There is one copy of every class, however the package is loaded.
export * from './index.js';
