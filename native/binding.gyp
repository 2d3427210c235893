{
  'targets': [
    {
      'target_name': 'root_optimizer',
      'sources': [
        '<!@(node -p "require(\'./sources.json\').native.map((file) => \'../\' + file).join(\' \')")',
        '../cuda/no_cuda.cpp',
      ],
      'include_dirs': [
        '<!(node -p "require(\'node-addon-api\').include_dir")',
        '<!(node -p "require(\'path\').relative(\'.\', require(\'node-api-headers\').include_dir)")',
      ],
      'defines': [
        'NAPI_VERSION=8',
        'NODE_ADDON_API_CPP_EXCEPTIONS_ALL',
        'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
      ],
      # The flags of CMakeLists.txt, in place of those that Node itself is built with.
      'cflags_cc!': ['-fno-exceptions', '-fno-rtti', '-std=gnu++17', '-std=gnu++20', '-std=gnu++23'],
      'cflags_cc': [
        '-std=c++20',
        '-Wall',
        '-Wextra',
        '-ffp-contract=off',
        '-fvisibility=hidden',
        '-fvisibility-inlines-hidden',
      ],
      'configurations': {
        'Release': {
          'defines': ['NDEBUG'],
          'xcode_settings': {'GCC_OPTIMIZATION_LEVEL': '3'},
        },
      },
      'conditions': [
        ['OS=="linux"', {'ldflags': ['-Wl,-z,nodelete', '-Wl,--version-script=<(module_root_dir)/exports.map']}],
      ],
      'xcode_settings': {
        'CLANG_CXX_LANGUAGE_STANDARD': 'c++20',
        'CLANG_CXX_LIBRARY': 'libc++',
        'GCC_ENABLE_CPP_EXCEPTIONS': 'YES',
        'GCC_ENABLE_CPP_RTTI': 'YES',
        'GCC_SYMBOLS_PRIVATE_EXTERN': 'YES',
        'MACOSX_DEPLOYMENT_TARGET': '11.0',
        'OTHER_CPLUSPLUSFLAGS': ['-Wall', '-Wextra', '-ffp-contract=off', '-fvisibility-inlines-hidden'],
      },
    },
  ],
}
